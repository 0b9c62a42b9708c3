"""Equations, inequalities and chains of them, read from the sides and the signs between."""

import re
from collections.abc import Callable, Sequence

from grpo_cli.grading.answers import (
    Answer,
    AnswerList,
    Bracketed,
    Chain,
    Equation,
    Inequality,
    Scalar,
    SolutionSet,
    TextAnswer,
)
from grpo_cli.grading.latex import GREEK, Unreadable
from grpo_cli.grading.rational import as_number

_GREEK = "|".join(GREEK)
_VARIABLE = re.compile(rf"[A-Za-z]|\\(?:{_GREEK})(?![A-Za-z])")
_CONSTANT = re.compile(
    rf"\\(?:begin|end)\{{[a-z]*\}}|\\(?!(?:{_GREEK})(?![A-Za-z]))[A-Za-z]+|(?<![A-Za-z])[ei](?![A-Za-z])"
)
_TEXT = re.compile(r"\\text\{[^{}]*\}")
_ARGUMENTS = re.compile(r"\([^()]*\)|_\{[^{}]*\}|\^\{-1\}|\\text\{[^{}]*\}")
_NOT_IN_A_NAME = re.compile(r"[-+*/^]|\\(?:frac|sqrt|sin|cos|tan|log|ln|binom|sum|int|lim|prod|begin)(?![A-Za-z])")


def compared(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    """What sides with signs between them state. Raises Unreadable."""
    if len(sides) != len(signs) + 1:
        raise Unreadable("a relation with an empty side")
    if set(signs) <= {"=", "\\approx"}:
        return _equated(sides, signs, inner)
    exact = next((n for n, sign in enumerate(signs[1:], 1) if sign == "\\approx"), len(signs))
    sides, signs = sides[: exact + 1], ["=" if sign == "\\approx" else sign for sign in signs[:exact]]
    if signs == ["\\in"]:
        return Equation(*sides, sides[0], inner(sides[1])) if _is_name(sides[0]) else Equation(*sides)
    if signs == ["\\ne"]:
        variable, value = sides if _is_name(sides[0]) else sides[::-1]
        if not _is_name(variable):
            return TextAnswer(f"{variable} \\ne {value}")
        point = inner(value)
        low, high = Scalar("-\\infty"), Scalar("\\infty")
        return SolutionSet(
            variable, AnswerList((Bracketed("(", (low, point), ")"), Bracketed("(", (point, high), ")")))
        )
    return _ordered(sides, signs, inner)


def _equated(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    """An equation; or the value at the end of a chain, together with what the chain says of it."""
    name = sides[0] if _is_name(sides[0]) else None
    if signs == ["="]:
        left, right = sides
        if name:
            return Equation(left, right, name, inner(right))
        if _is_name(right):
            return Equation(right, left, right, inner(left))
        if _has_variable(left) or _has_variable(right):
            return Equation(left, right)
    if name:
        sides, signs = sides[1:], signs[1:]
    num_exact = next((n for n, sign in enumerate(signs, 1) if sign == "\\approx"), len(sides))
    value = inner(sides[num_exact - 1])
    # x = 2+3 = 6 is a computation that ends in 6, right or wrong; but 41 = 42 and x = 41 = 42 are two answers.
    if len(sides) > 1 and (not name or all(as_number(side) for side in sides)):
        equal = [side for side in sides[: num_exact - 1] if not _has_variable(side) and "\\dots" not in side]
        value = Chain(value, tuple(_side(side, inner) for side in equal), tuple(map(as_number, sides[num_exact:])))
    return Equation(name, sides[num_exact - 1], name, value) if name else value


def _side(text: str, inner: Callable[[str], Answer]) -> Answer:
    """One side of a chain; where it cannot be read, words that equal no value."""
    try:
        return inner(text)
    except Unreadable:
        return TextAnswer(text)


def joined_by_and(parts: Sequence[Answer]) -> Answer | None:
    """x > 1 and x < 3 as the interval between; None where that is not what the parts are."""
    match parts:
        case [
            SolutionSet(variable=one, values=Bracketed() as first, inequality=Inequality()),
            SolutionSet(variable=other, values=Bracketed() as second, inequality=Inequality()),
        ] if one == other:
            lower, upper = (first, second) if first.items[1] == _INFINITY else (second, first)
            if lower.items[1] != _INFINITY or upper.items[1] == _INFINITY:
                return None
            low, high = lower.items[0], upper.items[1]
            ends = [as_number(end.text) if isinstance(end, Scalar) else None for end in (low, high)]
            if None not in ends and ends[0].value >= ends[1].value:
                return AnswerList(tuple(parts), impossible=True)
            return SolutionSet(one, Bracketed(lower.left, (low, high), upper.right))
    return None


_INFINITY = Scalar("\\infty")


def _ordered(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    if all(sign in (">", "\\ge") for sign in signs):
        sides, signs = sides[::-1], ["<" if sign == ">" else "\\le" for sign in signs[::-1]]
    if not all(sign in ("<", "\\le") for sign in signs):
        raise Unreadable("relations that do not belong together")
    strict = [sign == "<" for sign in signs]
    names = [_is_name(side) for side in sides]
    if names == [True, False]:
        interval = Bracketed("(", (Scalar("-\\infty"), inner(sides[1])), ")" if strict[0] else "]")
        return SolutionSet(sides[0], interval, Inequality(*sides, *strict))
    if names == [False, True]:
        interval = Bracketed("(" if strict[0] else "[", (inner(sides[0]), Scalar("\\infty")), ")")
        return SolutionSet(sides[1], interval, Inequality(*sides, *strict))
    if len(sides) == 3 and names[1]:
        interval = Bracketed("(" if strict[0] else "[", (inner(sides[0]), inner(sides[2])), ")" if strict[1] else "]")
        return SolutionSet(sides[1], interval)
    links = [Inequality(*link) for link in zip(sides, sides[1:], strict, strict=False)]
    return AnswerList(tuple(links)) if len(links) > 1 else links[0]


def _is_name(text: str) -> bool:
    """Whether `text` only names a value: x, a_{n}, f(x), (p, q), A:B, but not 2x or x^2."""
    if text.startswith("("):
        return all(_is_name(part) for part in text[1:-1].split(","))
    bare = _ARGUMENTS.sub("", text.removesuffix("'"))
    words = text.startswith("\\text{") or _VARIABLE.search(bare)
    return bool(words) and not text[0].isdigit() and not _NOT_IN_A_NAME.search(bare)


def _has_variable(text: str) -> bool:
    return bool(_VARIABLE.search(_CONSTANT.sub("", _TEXT.sub("", text))))


def name_key(name: str) -> str:
    """f(x) and f name the same."""
    return re.sub(r"(?<=.)\([^()]*\)", "", name)
