"""Parses equations, inequalities and chains of them from their sides and the signs between the sides."""

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


def parse_relation(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    """Returns the answer that `sides` with `signs` between them state. Raises Unreadable."""
    if len(sides) != len(signs) + 1:
        raise Unreadable("a relation has an empty side")
    if set(signs) <= {"=", "\\approx"}:
        return _parse_equalities(sides, signs, inner)
    exact = next((n for n, sign in enumerate(signs[1:], 1) if sign == "\\approx"), len(signs))
    sides, signs = sides[: exact + 1], ["=" if sign == "\\approx" else sign for sign in signs[:exact]]
    if signs == ["\\in"]:
        name, values = sides
        return Equation(name, values, name, inner(values)) if _is_name(name) else Equation(name, values)
    if signs == ["\\ne"]:
        variable, value = sides if _is_name(sides[0]) else sides[::-1]
        if not _is_name(variable):
            return TextAnswer(f"{variable} \\ne {value}")
        point = inner(value)
        low, high = Scalar("-\\infty"), Scalar("\\infty")
        return SolutionSet(
            variable, AnswerList((Bracketed("(", (low, point), ")"), Bracketed("(", (point, high), ")")))
        )
    return _parse_inequalities(sides, signs, inner)


def _parse_equalities(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    """Returns an equation, or the value at the end of a chain together with the chain's other sides."""
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
    # x = 2+3 = 6 is a computation whose result is 6, even if that is wrong; 41 = 42 and x = 41 = 42 state two answers.
    if len(sides) > 1 and (not name or all(as_number(side) for side in sides)):
        equal = [side for side in sides[: num_exact - 1] if not _has_variable(side) and "\\dots" not in side]
        value = Chain(
            value, tuple(_parse_side(side, inner) for side in equal), tuple(map(as_number, sides[num_exact:]))
        )
    return Equation(name, sides[num_exact - 1], name, value) if name else value


def _parse_side(text: str, inner: Callable[[str], Answer]) -> Answer:
    """Returns one side of a chain. An unreadable side becomes text, which equals no value."""
    try:
        return inner(text)
    except Unreadable:
        return TextAnswer(text)


def intersect_inequalities(parts: Sequence[Answer]) -> Answer | None:
    """Returns the interval for two bounds such as x > 1 and x < 3; None if the parts are anything else."""
    match parts:
        case [
            SolutionSet(variable=variable, values=Bracketed() as first, inequality=Inequality()),
            SolutionSet(variable=second_variable, values=Bracketed() as second, inequality=Inequality()),
        ] if variable == second_variable:
            lower, upper = (first, second) if first.items[1] == _INFINITY else (second, first)
            if lower.items[1] != _INFINITY or upper.items[1] == _INFINITY:
                return None
            low, high = lower.items[0], upper.items[1]
            low_end, high_end = (as_number(end.text) if isinstance(end, Scalar) else None for end in (low, high))
            if low_end is not None and high_end is not None and low_end.value >= high_end.value:
                return AnswerList(tuple(parts), is_impossible=True)
            return SolutionSet(variable, Bracketed(lower.left, (low, high), upper.right))
    return None


_INFINITY = Scalar("\\infty")


def _parse_inequalities(sides: list[str], signs: list[str], inner: Callable[[str], Answer]) -> Answer:
    """Returns the interval for bounds on a variable, otherwise inequalities. Raises Unreadable if < and > are mixed."""
    if all(sign in (">", "\\ge") for sign in signs):
        sides, signs = sides[::-1], ["<" if sign == ">" else "\\le" for sign in signs[::-1]]
    if not all(sign in ("<", "\\le") for sign in signs):
        raise Unreadable("a chain mixes relations of different directions or kinds")
    strict = [sign == "<" for sign in signs]
    names = [_is_name(side) for side in sides]
    if names == [True, False]:
        interval = Bracketed("(", (Scalar("-\\infty"), inner(sides[1])), ")" if strict[0] else "]")
        return SolutionSet(sides[0], interval, Inequality(sides[0], sides[1], strict[0]))
    if names == [False, True]:
        interval = Bracketed("(" if strict[0] else "[", (inner(sides[0]), Scalar("\\infty")), ")")
        return SolutionSet(sides[1], interval, Inequality(sides[0], sides[1], strict[0]))
    if len(sides) == 3 and names[1]:
        interval = Bracketed("(" if strict[0] else "[", (inner(sides[0]), inner(sides[2])), ")" if strict[1] else "]")
        return SolutionSet(sides[1], interval)
    links = [Inequality(*link) for link in zip(sides, sides[1:], strict, strict=False)]
    return AnswerList(tuple(links)) if len(links) > 1 else links[0]


def _is_name(text: str) -> bool:
    """Whether `text` only names a value: x, a_{n}, f(x), (p, q) and A:B do; 2x and x^2 do not."""
    if text.startswith("("):
        return all(_is_name(part) for part in text[1:-1].split(","))
    bare = _ARGUMENTS.sub("", text.removesuffix("'"))
    words = text.startswith("\\text{") or _VARIABLE.search(bare)
    return bool(words) and not text[0].isdigit() and not _NOT_IN_A_NAME.search(bare)


def _has_variable(text: str) -> bool:
    return bool(_VARIABLE.search(_CONSTANT.sub("", _TEXT.sub("", text))))


def name_key(name: str) -> str:
    """Returns `name` without arguments: f(x) and f name the same function."""
    return re.sub(r"(?<=.)\([^()]*\)", "", name)
