"""What an answer is made of: lists, tuples, intervals, matrices, relations, words, times, scalars with their units."""

from dataclasses import dataclass

from grpo_cli.reward.rational import Number
from grpo_cli.reward.units import Scalar


@dataclass(frozen=True, slots=True)
class Words:
    """Plain words."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter and what it stands for: (C) Paris."""

    letter: str
    text: "Part"


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day, or a duration in hours and minutes; `ratio` is the same text read as a ratio."""

    seconds: int  # since midnight
    half: str  # am, pm or ""
    ratio: "Part | None"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two terms, as in 16:9."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Several:
    """Parts whose order means nothing: a list, a set, a union, the two values of a plus-minus."""

    items: tuple["Part", ...]
    either: bool = False  # joined by `or`: one of them holds
    impossible: bool = False  # joined by `and`, although they exclude each other


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A tuple or an interval; which of the two does not matter here."""

    left: str
    items: tuple["Part", ...]
    right: str


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Part", ...], ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """`name` is the left side where that only names the `value` on the right, as x, f(x) or (p, q) do."""

    left: str
    right: str
    name: str | None = None
    value: "Part | None" = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A value, other sides that are said to be equal to it, and numbers near it, None where one is no plain number."""

    value: "Part"
    equal: tuple["Part", ...]
    near: tuple[Number | None, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values of a variable that inequalities allow, and the inequality if it is one."""

    variable: str
    values: "Part"
    inequality: "Inequality | None" = None


@dataclass(frozen=True, slots=True)
class Inequality:
    """low < high, or low <= high, where neither is a variable alone."""

    low: str
    high: str
    strict: bool


Part = Scalar | Words | Choice | Clock | Ratio | Several | Bracketed | Matrix | Equation | Chain | Bounds | Inequality
