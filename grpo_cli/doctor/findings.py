"""The result of a check."""

from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial


class Level(StrEnum):
    ok = auto()
    note = auto()  # something is missing that only some runs need
    warning = auto()  # runs can start, but something will not work or is untested
    fault = auto()  # no run can train


@dataclass(frozen=True)
class Finding:
    level: Level
    seen: str
    fix: str = ""  # what to do, if anything
    about: str = ""  # the package or part of the machine; the name of the check unless set


ok, note, warning, fault = (partial(Finding, level) for level in Level)
