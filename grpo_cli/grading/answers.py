"""The kinds of answer: lists, tuples, intervals, matrices, relations, words, times, scalars with their units."""

from dataclasses import dataclass

from grpo_cli.grading.rational import Number
from grpo_cli.grading.units import Scalar


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """Plain words."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The letter of a multiple-choice answer and its text: (C) Paris."""

    letter: str
    text: "Answer"


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day, or a duration in hours and minutes; `ratio` is the same text read as a ratio."""

    seconds: int  # since midnight
    am_pm: str  # "a", "p" or ""
    ratio: "Answer | None"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two terms, such as 16:9."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class AnswerList:
    """Several answers in any order: a list, a set, a union, the two values of a plus-minus."""

    items: tuple["Answer", ...]
    is_either: bool = False  # joined by `or`: one of them holds
    is_impossible: bool = False  # joined by `and`, although they contradict each other


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A tuple or an interval. Both are compared in the same way."""

    left: str
    items: tuple["Answer", ...]
    right: str


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation. If the left side only names the `value` on the right (x, f(x), (p, q)), it is also the `name`."""

    left: str
    right: str
    name: str | None = None
    value: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain such as 2+2 = 4 or 1/3 = 0.333..: its value and the other sides."""

    value: "Answer"
    equal: tuple["Answer", ...]  # sides that the chain claims to be equal to `value`
    near: tuple[Number | None, ...]  # sides after an approximation sign; None for a side that is not a plain number


@dataclass(frozen=True, slots=True)
class SolutionSet:
    """The values of a variable that satisfy inequalities, and the inequality if there is only one."""

    variable: str
    values: "Answer"
    inequality: "Inequality | None" = None


@dataclass(frozen=True, slots=True)
class Inequality:
    """low < high, or low <= high if not `strict`."""

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
