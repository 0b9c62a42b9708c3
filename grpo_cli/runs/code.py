"""The code that a run was started with: `<run folder>/code.json`.

A list with an object for the first start, and one for each later start with other code. In the folder of an evaluation,
a .jsonl file would be taken for a benchmark's responses.
"""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpo_cli
from grpo_cli.errors import DataError
from grpo_cli.files import write_whole
from grpo_cli.jsonl import as_object, parse_json

FILE = "code.json"
PLACE = Path(grpo_cli.__file__).parents[1]  # a git checkout, or the folder of installed packages
MAX_WAIT_S = 5


def record_code(folder: Path) -> None:
    """Add this code to the file, unless the last one there is the same. A damaged file is written again."""
    code, before = this_code(), []
    with suppress(DataError):
        before = recorded_code(folder)
    if before[-1:] != [code]:
        write_whole(folder / FILE, json.dumps([*before, code], indent=1) + "\n")


def recorded_code(folder: Path) -> list[dict[str, Any]]:
    """What `this_code` returned at each start with other code than before; empty for a run of an earlier version.

    Raises DataError if the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    codes = parse_json(file.read_bytes(), str(file))
    if not isinstance(codes, list):
        raise DataError(f"{file} must hold a list.")
    return [as_object(code, str(file)) for code in codes]


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
