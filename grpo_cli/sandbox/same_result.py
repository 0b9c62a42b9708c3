"""Compares what the tested code returned or printed with what a test expects."""

import contextlib
import math
import reprlib
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_KEY_DIGITS = 3000  # hexadecimal digits of an integer that is a dictionary's key

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


def brief(value: Any) -> str:
    """Returns at most 80 characters of the value's repr, in time that does not depend on its size."""
    return f"{_BRIEF.repr(value):.80}"


def same_value(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether `got`, as encoded by a box, equals the plain value `expected`.

    `got` is compared piece by piece and never decoded as a whole: a hostile box could send a set or dictionary with
    thousands of colliding hashes, or a huge fraction, which would block this process.
    """
    if isinstance(got, dict) and len(got) == 1:
        ((tag, body),) = got.items()
        if tag == "tuple" and isinstance(body, list):
            got = body
        elif tag == "namedtuple" and isinstance(body, list) and len(body) == 3:
            got = body[2]
        elif tag == "int" and (integer := _integer(got)) is not None:
            got = integer
        elif tag == "dict" and isinstance(expected, dict):
            return _same_dict(body, expected, tolerance)
        elif tag in ("Fraction", "Decimal") and isinstance(expected, int | float):
            return _same_exact_number(tag, body, expected, tolerance)
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return got == expected or (tolerance > 0 and _is_close(got, expected, tolerance))
    if isinstance(expected, list) and isinstance(got, list):
        return len(got) == len(expected) and all(map(same_value, got, expected, [tolerance] * len(got)))
    return type(got) is type(expected) and not isinstance(got, dict) and got == expected


def _integer(data: Any) -> int | None:
    """Returns an integer that a box has encoded; None if `data` is something else."""
    if type(data) is int:
        return data
    if isinstance(data, dict) and isinstance(data.get("int"), str):
        with contextlib.suppress(ValueError):
            return int(data["int"], 16)
    return None


def _same_exact_number(tag: str, body: Any, expected: float, tolerance: float) -> bool:
    try:
        if tag == "Decimal":
            got = Decimal(body) if isinstance(body, str) else Decimal("nan")
            return got == expected or (tolerance > 0 and _is_close(float(got), expected, tolerance))
        numerator, denominator = map(_integer, body)
        if numerator is None or denominator is None or denominator < 1:
            return False
        expected_numerator, expected_denominator = expected.as_integer_ratio()
        if numerator * expected_denominator == expected_numerator * denominator:
            return True
        return tolerance > 0 and _is_close(numerator / denominator, expected, tolerance)
    except (InvalidOperation, OverflowError, TypeError, ValueError):  # not a number, or too large for a float
        return False


def _same_dict(body: Any, expected: dict[str, Any], tolerance: float) -> bool:
    if not (isinstance(body, list) and len(body) == len(expected)):
        return False
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in body):
        return False
    got = {_json_key(key): value for key, value in body}
    return got.keys() == expected.keys() and all(same_value(got[k], expected[k], tolerance) for k in expected)


def _json_key(key: Any) -> str | None:
    """Returns a dictionary's key as the string that JSON writes; None if JSON cannot write it."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, float):
        return float.__repr__(key)
    if isinstance(key, dict) and len(str(key.get("int", ""))) > MAX_KEY_DIGITS:
        return None  # conversion to decimal digits takes quadratic time
    number = _integer(key)
    return None if number is None else str(number)


def _is_close(got: float, expected: float, tolerance: float) -> bool:
    try:
        return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer too large for a float
        return False


def same_output(printed: str, expected: str, tolerance: float) -> bool:
    """Whether two outputs agree line by line, as LiveCodeBench compares them.

    White space around each line and around the whole output is ignored. Two lines agree if they are equal or contain
    the same decimal numbers, such as `1.50` and `1.5`. With a tolerance, words may also be numbers that are close.
    """
    printed_lines, expected_lines = (
        [line.strip() for line in text.strip().split("\n")] for text in (printed, expected)
    )
    if len(printed_lines) != len(expected_lines):
        return False
    return all(map(_same_line, printed_lines, expected_lines, [tolerance] * len(printed_lines)))


def _same_line(printed: str, expected: str, tolerance: float) -> bool:
    if printed == expected:
        return True
    expected_words = expected.split()
    printed_words = printed.split(maxsplit=len(expected_words))
    if len(printed_words) != len(expected_words):
        return False
    pairs = list(zip(printed_words, expected_words, strict=True))
    with contextlib.suppress(InvalidOperation):
        if all(Decimal(word) == Decimal(other) for word, other in pairs):
            return True
    return tolerance > 0 and all(
        word == other or _is_close(_number(word), _number(other), tolerance) for word, other in pairs
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan  # not close to any number
