"""The code that a run was started with: `<run folder>/code.jsonl`.

It has a line for the first start, and one for each later start with other code.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpo_cli
from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text, read_objects

FILE = "code.jsonl"
PLACE = Path(grpo_cli.__file__).parents[1]  # a git checkout, or the folder of installed packages
MAX_WAIT_S = 5


def record_code(folder: Path) -> None:
    """Add this code to the file, unless its last line says the same."""
    file = folder / FILE
    before = file.read_bytes() if file.is_file() else b""
    line = json_text(this_code()).encode() + b"\n"
    if not before.endswith(line):
        write_whole(file, before + line)


def recorded_code(folder: Path) -> list[dict[str, Any]]:
    """What `this_code` returned at each start with other code than before; empty for a run of an earlier version.

    Raises DataError if the file is damaged.
    """
    file = folder / FILE
    return [row for _, row in read_objects(file)] if file.is_file() else []


def this_code(place: Path = PLACE) -> dict[str, Any]:
    """`version` of r1zero, `commit` of its checkout, and `changed`: whether its files differ from that commit.

    Both are None outside a checkout, or if git is missing or fails. Files that git does not know do not count.
    """
    code: dict[str, Any] = {"version": grpo_cli.__version__, "commit": None, "changed": None}
    if (place / ".git").exists():  # otherwise git would describe a checkout that only contains the environment
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
        # Without GIT_DIR, which a git hook sets for its own checkout; without locks, since another git may run.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment["GIT_OPTIONAL_LOCKS"] = "0"
        with suppress(OSError, subprocess.SubprocessError):
            options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": MAX_WAIT_S}
            found = subprocess.run(command, cwd=place, env=environment, **options).stdout.strip()
            code |= {"commit": found.removesuffix("+"), "changed": found.endswith("+")}
    return code
