"""What an answer is made of: lists, tuples, intervals, matrices, relations, words, times, scalars with their units."""

from dataclasses import dataclass

from grpo_cli.grading.rational import Number
from grpo_cli.grading.units import Scalar


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """Plain words."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter and what it stands for: (C) Paris."""

    letter: str
    text: "Answer"


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day, or a duration in hours and minutes; `ratio` is the same text read as a ratio."""

    seconds: int  # since midnight
    half: str  # am, pm or ""
    ratio: "Answer | None"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two terms, as in 16:9."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class AnswerList:
    """Parts whose order means nothing: a list, a set, a union, the two values of a plus-minus."""

    items: tuple["Answer", ...]
    either: bool = False  # joined by `or`: one of them holds
    impossible: bool = False  # joined by `and`, although they exclude each other


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A tuple or an interval; which of the two does not matter here."""

    left: str
    items: tuple["Answer", ...]
    right: str


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """`name` is the left side where that only names the `value` on the right, as x, f(x) or (p, q) do."""

    left: str
    right: str
    name: str | None = None
    value: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A value, other sides that are said to be equal to it, and numbers near it, None where one is no plain number."""

    value: "Answer"
    equal: tuple["Answer", ...]
    near: tuple[Number | None, ...]


@dataclass(frozen=True, slots=True)
class SolutionSet:
    """The values of a variable that inequalities allow, and the inequality if it is one."""

    variable: str
    values: "Answer"
    inequality: "Inequality | None" = None


@dataclass(frozen=True, slots=True)
class Inequality:
    """low < high, or low <= high, where neither is a variable alone."""

    low: str
    high: str
    strict: bool


Answer = (
    Scalar
    | TextAnswer
    | Choice
    | Clock
    | Ratio
    | AnswerList
    | Bracketed
    | Matrix
    | Equation
    | Chain
    | SolutionSet
    | Inequality
)
