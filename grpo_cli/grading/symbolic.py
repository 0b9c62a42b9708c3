"""Equality of scalar expressions, by Math-Verify. To be called only in a process that can be killed.

Importing this module imports sympy: only the verifying processes do.
"""

import hashlib
import re
from fractions import Fraction
from functools import lru_cache

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from sympy import (
    Abs,
    Derivative,
    E,
    Expr,
    I,
    Max,
    Min,
    Mod,
    Piecewise,
    Rational,
    Symbol,
    ceiling,
    exp,
    floor,
    log,
    nan,
    sign,
    simplify,
    zoo,
)

from grpo_cli.grading.latex import FUNCTIONS, GREEK, Unreadable
from grpo_cli.grading.math_grader import Judgement, Relation, judge
from grpo_cli.grading.rational import Number, approximates, as_number
from grpo_cli.grading.units import TRIGONOMETRIC

_CONVERSION = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)


def judge_fully(gold: str, answer: str) -> Judgement:
    return judge(gold, answer, algebra)


def algebra(relation: Relation, gold: str, answer: str) -> bool:
    """Whether two expressions stand in `relation`. Raises Unreadable where that cannot be told."""
    left, right = parse(gold), parse(answer)
    try:
        return _stand(relation, left, right, as_number(gold), as_number(answer))
    except MemoryError:
        raise
    except Exception as error:  # sympy raises whatever its parts raise
        raise Unreadable(f"sympy cannot compare them: {type(error).__name__}") from error


def _stand(relation: Relation, left: Expr, right: Expr, gold: Number | None, answer: Number | None) -> bool:
    if relation == Relation.value:
        match _same_values(left, right):
            case True:
                return True
            case False:
                return _rounds(gold, right) or _rounds(answer, left)
        return verify(left, right, timeout_seconds=None) or _same_logarithms((left - right).doit())
    ratio = simplify(left / right)
    return bool(ratio.is_number and ratio.is_nonzero and (relation == Relation.equation or ratio.is_positive))


@lru_cache(maxsize=8192)
def parse(text: str) -> Expr:
    """A canonical scalar as sympy reads it. Raises Unreadable."""
    latex = _readable(text)
    try:
        expression = latex2sympy(latex, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
        # dv/dt is not 0, but a quantity of its own.
        quotients = (each for each in expression.atoms(Derivative) if not each.expr.has(*each.variables))
        opaque = {quotient: Symbol(f"({quotient})") for quotient in quotients}
        expression = expression.subs({**opaque, Symbol("i", real=True): I})
    except MemoryError:
        raise
    except Exception as error:  # the grammar raises bare Exceptions, and sympy whatever its parts raise
        raise Unreadable(f"{text[:80]} is no expression that Math-Verify knows") from error
    if not isinstance(expression, Expr) or expression.has(zoo, nan):
        raise Unreadable(f"{text[:80]} has no value")
    return expression


_BASE = re.compile(r"\d_\{")
_SPLIT_DIGITS = re.compile(r"\d ?(?: \d|\{)")
_HIDING = re.compile(r"\\(?:[hv]?phantom|[bx]?cancel|(?:text)?color|label|tag|[hv]space)(?![A-Za-z])")
_NUMBER = re.compile(
    r"(?<![\d.])(?:\d*\.\d*\\overline\{\d+\}|\d+\\frac\{\d+\}\{\d+\}|(?:\d*\.\d+|\d+)[eE][+-]?\d{1,3}(?!\d)|\d*\.\d+)"
)
# A letter or command with its power, subscript and primes; the power may stand before the subscript.
_SYMBOL = re.compile(r"(\\text\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z])((?:\^\{[^{}]*\})?)(?:_\{((?:[^{}]|\{[^{}]*\})*)\})?('*)")
_PRODUCT = re.compile(r"(?<=[0-9)]) ?(?=[(\[]|\\binom)")
_DIVISOR_OF_VARIABLES = re.compile(r"\\(?:gcd|lcm) ?\(?[^()]*[A-Za-z]")
_PLAIN_WORD = re.compile(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS | GREEK - {'mu', 'nu', 'xi'})})(?![A-Za-z])")
_DIFFERENTIAL = re.compile(r"\\int(?![A-Za-z])|\\frac\{d")
_ROOT_OF_PARENTHESES = re.compile(r"\\sqrt ?\(([^()]*)\)")
_DEGREES = re.compile(r"(\d+|[A-Za-z])\^\{\\circ\}")


def _readable(text: str) -> str:
    r"""`text` in the part of LaTeX that latex2sympy reads as it is meant. Raises Unreadable.

    >>> _readable(r"0.5R_{\text{max}}")
    '(\\frac{1}{2}) x_{Rmax}'
    """
    if _BASE.search(text):
        raise Unreadable(f"{text[:80]} has a number in another base")
    if _SPLIT_DIGITS.search(text):
        raise Unreadable(f"{text[:80]} has two numbers side by side")
    if _HIDING.search(text):
        raise Unreadable(f"{text[:80]} hides or strikes out a part of itself")
    if _DIVISOR_OF_VARIABLES.search(text):
        raise Unreadable(f"{text[:80]} has a divisor that sympy would take for 1")
    text = _NUMBER.sub(_as_fraction, _PLAIN_WORD.sub(r"\\\1 ", text))
    text = _PRODUCT.sub("*", text)  # else it takes 2(3) for the mixed number of 2 and 3
    if "\\circ" in text:
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}" if TRIGONOMETRIC.search(text) else r"\1", text)
    text = _ROOT_OF_PARENTHESES.sub(r"\\sqrt{\1}", text)
    return _SYMBOL.sub(_as_symbol, text)


def _as_fraction(match: re.Match[str]) -> str:
    value = as_number(match.group()).value
    return rf"(\frac{{{value.numerator}}}{{{value.denominator}}})"


_SPELT_OUT = str.maketrans(
    {"+": "Plus", "-": "Minus"} | {str(digit): letter for digit, letter in enumerate("zyxwvutsrq")}
)


def _as_symbol(match: re.Match[str]) -> str:
    r"""R_{\text{max}}' as x_{Rmaxprime}: latex2sympy knows few subscripts, and takes \gamma for a function."""
    base, power, subscript, primes = match.groups(default="")
    is_text = base.startswith("\\text{")
    if base[0] == "\\" and not is_text and base[1:] not in GREEK:
        return match.group()
    is_misread = base == "E" or (base == "d" and not _DIFFERENTIAL.search(match.string))  # as e, and as dx
    if subscript or primes or base[1:] in GREEK or is_misread:
        name = re.sub(r"\\text|[^A-Za-z]", "", (base + subscript).translate(_SPELT_OUT))
        return rf" x_{{{name}{'prime' * len(primes)}}}{power}"
    return f" {base[6:-1]} {power}" if is_text and len(base) == 8 else match.group()


_STEPWISE = (Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign)
_DIGITS = 150  # to which a difference is worked out
_ZERO = Rational(1, 10**100)  # a difference below this, beside values of size 1, is what rounding leaves of 0
_HUGE = 10**90  # beside values above this, a difference of 1 would pass for 0


def _same_values(left: Expr, right: Expr) -> bool | None:
    """Whether the two agree to 100 digits where each variable has some positive value; None if that says nothing.

    Analytic functions that do are the same. Trying is far quicker than `simplify`, and sees through more.
    """
    difference = (left - right).doit()
    if difference.is_Rational:
        return bool(difference == 0)
    symbols = left.free_symbols | right.free_symbols
    point = {symbol: _somewhere(str(symbol)) for symbol in symbols}
    sizes = [abs(side.evalf(subs=point)) for side in (left, right)]
    remainder = abs(difference.evalf(subs=point, maxn=_DIGITS))
    if not all(value.is_number and value.is_finite for value in (*sizes, remainder)):
        return None
    if remainder > _ZERO * max(sizes):
        return False
    return None if max(sizes) > _HUGE or (symbols and difference.has(*_STEPWISE)) else True


def _same_logarithms(difference: Expr) -> bool:
    """Whether a difference as of ln(x^2) and 2 ln|x| is 0 wherever it is real: where e to twice of it is 1."""
    if not difference.has(log) or not difference.has(Abs):
        return False
    natural = difference.replace(log, _natural_logarithm)
    for scale in (1, -1, 1000, -1000):
        point = {symbol: scale * _somewhere(str(symbol)) for symbol in difference.free_symbols}
        if abs(natural.evalf(subs=point, maxn=_DIGITS)) > _ZERO:
            return False
    return simplify(exp(2 * natural)) == 1


def _natural_logarithm(value: Expr, base: Expr = E) -> Expr:
    logarithm = log(value.args[0] ** 2) / 2 if isinstance(value, Abs) else log(value)
    return logarithm if base == E else logarithm / log(base)


def _somewhere(name: str) -> Rational:
    """A value between 1 and 2 that no answer is likely to hit."""
    return 1 + Rational(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big"), 2**32 - 5)


def _rounds(decimal: Number | None, value: Expr) -> bool:
    """Whether `decimal` is where `value`, which has no end as a decimal, begins or what it rounds to."""
    if decimal is None or value.free_symbols or not value.is_real or value.is_rational:
        return False
    return approximates(decimal, Fraction(str(value.evalf(60))))
