"""Plain numbers as exact fractions: `0.1` is one tenth, and `0.\\overline{3}` is one third."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value. For a decimal also how many digits it has."""

    value: Fraction
    decimals: int = 0  # digits after the point
    digits: int = 0  # significant digits


_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3})|\*10\^\{([+-]?\d{1,3})\})?")
_FRACTION = re.compile(r"([+-]?)(?:(\d+) )?(\d+)/(\d+)")
_LATEX_FRACTION = re.compile(r"([+-]?)(\d*)\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
MAX_DIGITS = 4_000  # Python's int() raises for strings of more than 4,300 digits
MIN_DIGITS = 6  # a decimal with fewer significant digits does not pass as the rounded form of another number


@lru_cache(maxsize=4096)
def as_number(text: str) -> Number | None:
    r"""Returns the value of a canonical text; None if it is not a plain number.

    >>> [str(as_number(text).value) for text in ("-1.50", r"2\frac{3}{4}", "2 3/4", "3e2", r"0.1\overline{6}")]
    ['-3/2', '11/4', '11/4', '300', '1/6']
    """
    if not text or len(text) > MAX_DIGITS or text[-1] not in "0123456789.}":
        return None
    if text.isdigit():
        return Number(Fraction(int(text)))
    if match := _DECIMAL.fullmatch(text):
        sign, whole, decimals, e_exponent, exponent = match.groups(default="")
        if not whole + decimals:
            return None
        shown = len(decimals) - int(e_exponent or exponent or 0)
        value = Fraction(int(sign + whole + decimals)) / Fraction(10) ** shown
        return Number(value, shown, len((whole + decimals).lstrip("0"))) if decimals else Number(value)
    if match := _FRACTION.fullmatch(text) or _LATEX_FRACTION.fullmatch(text):
        sign, whole, numerator, denominator = match.groups(default="")
        if int(denominator) == 0:
            return None
        value = int(whole or 0) + Fraction(int(numerator), int(denominator))
        return Number(-value if sign == "-" else value)
    if match := _REPEATING.fullmatch(text):
        sign, whole, decimals, repeated = match.groups(default="")
        period = Fraction(int(repeated), 10 ** len(repeated) - 1)
        value = (int(whole + decimals or 0) + period) / 10 ** len(decimals)
        return Number(-value if sign == "-" else value)
    return None


def numbers_equal(left: Number, right: Number) -> bool:
    """Whether two numbers are equal, or one is a decimal of at least six digits that truncates or rounds the other."""
    return left.value == right.value or approximates(left, right.value) or approximates(right, left.value)


def approximates(decimal: Number, value: Fraction) -> bool:
    """Whether `decimal` has at least six significant digits and is `value` truncated or rounded to them."""
    if decimal.digits < MIN_DIGITS:
        return False
    shown, exact = decimal.value * 10**decimal.decimals, value * 10**decimal.decimals
    if shown * exact < 0:
        return False
    return abs(shown) in (math.floor(abs(exact)), math.floor(abs(exact) + Fraction(1, 2)))


def is_near(value: Fraction, decimal: Number) -> bool:
    """Whether `decimal`, of any length, differs from `value` by less than one unit in its last place."""
    return abs(value - decimal.value) * 10**decimal.decimals < 1
