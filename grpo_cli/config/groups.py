"""The config groups: folders of conf/ and of the user's --config-dir. Each file in one is a choice."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path

import yaml

from grpo_cli.config.compose import conf_dir

HIDDEN = {"tuning", "supervised_tuning"}  # chosen by the model's name, not by users
NOT_COMPOSED = {"pipeline", "science"}  # their files are no settings


def config_groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """The groups in all folders, each with its choices and their files; the first folder wins, as in Hydra."""
    groups: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            if file.parent.name not in NOT_COMPOSED:
                groups.setdefault(file.parent.name, {}).setdefault(file.stem, file)
    return groups


@cache
def groups_of(command: str) -> frozenset[str]:
    """The groups that a command uses, from the defaults in its file."""
    entries = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = [key.split()[-1] for entry in entries if isinstance(entry, dict) for key in entry]  # `optional tuning`
    return frozenset(key for key in keys if "/" not in key)


def description(file: Path) -> str:
    """What a choice is: the comment that its file starts with."""
    with file.open(encoding="utf-8") as lines:
        comment = list(takewhile(lambda line: line.startswith("#"), lines))
    return " ".join(line.strip("# \n") for line in comment if not line.startswith("# @package"))


def extra_conf_dirs(arguments: Sequence[str]) -> Iterator[Path]:
    """The folders that --config-dir adds."""
    for argument, value in pairwise([*arguments, ""]):
        if argument in ("--config-dir", "-cd"):
            yield Path(value)
        elif argument.startswith(("--config-dir=", "-cd=")):
            yield Path(argument.split("=", 1)[1])
