"""Parses a canonical text into the kinds of answer that `answers.py` defines.

It takes linear time and does no mathematics: `math_grader.py` compares the parts.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from grpo_cli.grading.answers import Answer, AnswerList, Bracketed, Matrix, Ratio, Scalar, TextAnswer
from grpo_cli.grading.latex import Unreadable
from grpo_cli.grading.phrases import parse_choice, parse_clock, parse_date, parse_words, strip_lead_in
from grpo_cli.grading.relations import intersect_inequalities, parse_relation
from grpo_cli.grading.units import split_unit

MAX_DEPTH = 12


def _outside_brackets(marks: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<open>[(\[{{])|(?P<close>[)\]}}])|(?P<mark>{marks})")


_LIST = _outside_brackets(r"[,;]|(?<![A-Za-z\\])(?:and|or|AND|OR)(?![A-Za-z]{2})")
_RELATION = _outside_brackets(r"[=<>]|\\(?:le|ge|ne|in|approx)(?![A-Za-z])")
_UNION = _outside_brackets(r"\\cup(?![A-Za-z])")
_RATIO = _outside_brackets(":")
_BASE_NUMBER = re.compile(r"\(?(-?\d[\dA-F.]*)\)?_\{(\d+)\}")  # equal only if written in the same base
_MATRIX = re.compile(
    r"((?:(?!\\begin).)*)\\begin\{(?:[pbB]?matrix|array)\}(?:\{[clr|]+\})?(.*)\\end\{(?:[pbB]?matrix|array)\}"
)


def parse_answer(text: str, depth: int = 0) -> Answer:
    """Returns the answer that a canonical text states. Raises Unreadable."""
    if depth > MAX_DEPTH:
        raise Unreadable("nested too deeply")
    if depth == 0:
        text = strip_lead_in(text)
    text = text.strip(" ").removeprefix("=").removeprefix("\\approx").strip(" ").removeprefix("+")
    if not text:
        raise Unreadable("a part of the answer is empty")

    def inner(part: str) -> Answer:
        return parse_answer(part, depth + 1)

    if "\\begin" in text and (matrix := _parse_matrix(text, inner)):
        return matrix
    if date := parse_date(text):
        return date
    if choice := parse_choice(text, inner):
        return choice
    items, marks = _split(text, _LIST)
    if len(items) > 1:
        return _join_list([inner(item) for item in items], {mark.lower() for mark in marks})
    sides, signs = _split(text, _RELATION)
    if signs:
        return parse_relation(sides, signs, inner)
    if "\\pm" in text or "\\mp" in text:
        upper = text.replace("\\pm", "+").replace("\\mp", "-")
        lower = text.replace("\\pm", "-").replace("\\mp", "+")
        return _answer_list((inner(upper), inner(lower)))
    parts, _ = _split(text, _UNION)
    if len(parts) > 1:
        return _answer_list(inner(part) for part in parts)
    if brackets := _enclosing_brackets(text):
        return _parse_bracketed(text, *brackets, inner)
    if text == "\\mathbb{R}":
        return Bracketed("(", (Scalar("-\\infty"), Scalar("\\infty")), ")")
    if text.startswith("\\mathbb{"):
        return TextAnswer(text)
    if match := _BASE_NUMBER.fullmatch(text):
        return TextAnswer(f"{match[1].replace('-', 'minus ')} in base {match[2]}")
    terms, _ = _split(text, _RATIO)
    ratio: Answer | None = None
    if len(terms) == 2:
        ratio = Ratio(Scalar(rf"\frac{{{terms[0]}}}{{{terms[1]}}}"))
    elif len(terms) > 2:
        ratio = Bracketed(":", tuple(inner(term) for term in terms), ":")
    return parse_clock(text, ratio) or ratio or parse_words(text, inner) or split_unit(text)


def _parse_matrix(text: str, inner: Callable[[str], Answer]) -> Matrix | None:
    """Returns a matrix, multiplied by the factor before it if there is one; None if `text` is not a matrix."""
    match = _MATRIX.fullmatch(text)
    if not match or "\\begin" in match[2]:
        return None
    factor = match[1]
    if factor and (factor[-1] in "=,;<>" or _split(factor, _LIST)[1] or _split(factor, _RELATION)[1]):
        return None
    if factor and factor != "-":
        factor = f"({factor.rstrip('* ')})*"
    rows = [row for row in match[2].split("\\\\") if row]
    return Matrix(
        tuple(tuple(inner(f"{factor}({cell})" if factor else cell) for cell in row.split("&")) for row in rows)
    )


def _join_list(parts: list[Answer], marks: set[str]) -> Answer:
    if marks == {"and"} and (intersection := intersect_inequalities(parts)):
        return intersection
    return replace(_answer_list(parts), is_either="or" in marks)


def _split(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Splits `text` at marks outside brackets. Returns the pieces that are not empty, and the marks."""
    pieces, marks, depth, start = [], [], 0, 0
    for token in pattern.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth < 0:
                raise Unreadable("a closing bracket has no opening bracket")
        elif depth == 0:
            pieces.append(text[start : token.start()])
            marks.append(token["mark"])
            start = token.end()
    if depth:
        raise Unreadable("a bracket is never closed")
    pieces.append(text[start:])
    return [piece.strip(" ") for piece in pieces if piece.strip(" ")], marks


def _answer_list(parts: Iterable[Answer]) -> AnswerList:
    """Returns `parts` as one flat list. A repeated tuple is listed once, because repeating a solution adds nothing."""
    items: list[Answer] = []
    for part in parts:
        for item in part.items if isinstance(part, AnswerList) else [part]:
            if not (isinstance(item, Bracketed) and item in items):
                items.append(item)
    return AnswerList(tuple(items))


def _enclosing_brackets(text: str) -> tuple[str, str] | None:
    """Returns the brackets that enclose the whole text; None if no pair does."""
    left = text[:2] if text.startswith("\\{") else text[0]
    right = text[-2:] if text.endswith("\\}") else text[-1]
    if left not in ("(", "[", "{", "\\{") or right not in (")", "]", "}", "\\}"):
        return None
    depth = 0
    for position, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in ")]}":
            return (left, right) if position == len(text) - 1 else None
    return None


def _parse_bracketed(text: str, left: str, right: str, inner: Callable[[str], Answer]) -> Answer:
    content = text[len(left) : -len(right)]
    if not content.strip(" "):
        return Scalar(r"\emptyset")
    items, _ = _split(content, _LIST)
    if left in ("(", "[") and right in (")", "]"):
        if len(items) > 1:
            return Bracketed(left, tuple(inner(item) for item in items), right)
        if (left, right) in (("(", ")"), ("[", "]")):
            return inner(content)
    elif (left, right) in (("\\{", "\\}"), ("{", "}")):
        if len(items) > 1:
            return _answer_list(inner(item) for item in items)
        if left == "\\{":
            return inner(content)
        raise Unreadable("the answer is enclosed in braces without a backslash")
    raise Unreadable(f"the bracket {left} is closed by {right}")
