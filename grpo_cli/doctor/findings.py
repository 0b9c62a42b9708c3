"""What doctor says of one thing that it looked at."""

from dataclasses import dataclass
from enum import StrEnum, auto


class Level(StrEnum):
    ok = auto()
    note = auto()  # something is not here that only some runs want
    warning = auto()  # runs can start, and something will not work, or was not tested
    fault = auto()  # nothing can be trained


@dataclass(frozen=True)
class Finding:
    about: str
    level: Level
    seen: str
    mend: str = ""  # what to do, where there is something to do
