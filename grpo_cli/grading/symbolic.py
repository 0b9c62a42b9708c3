"""Compares scalar expressions with Math-Verify. Call it only in a process that can be killed.

Importing this module imports sympy, so only the grading processes import it.
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
    """Returns the verdict on `answer`, with algebra if exact comparison cannot decide."""
    return judge(gold, answer, algebra)


def algebra(relation: Relation, gold: str, answer: str) -> bool:
    """Whether `relation` holds between two expressions. Raises Unreadable if that cannot be decided."""
    left, right = parse(gold), parse(answer)
    try:
        return _relation_holds(relation, left, right, as_number(gold), as_number(answer))
    except MemoryError:
        raise
    except Exception as error:  # sympy can raise exceptions of any type
        raise Unreadable(f"sympy cannot compare them: {type(error).__name__}") from error


def _relation_holds(relation: Relation, left: Expr, right: Expr, gold: Number | None, answer: Number | None) -> bool:
    if relation == Relation.equality:
        match _same_values(left, right):
            case True:
                return True
            case False:
                return _is_rounded(gold, right) or _is_rounded(answer, left)
        return verify(left, right, timeout_seconds=None) or _same_logarithms((left - right).doit())
    ratio = simplify(left / right)
    return bool(ratio.is_number and ratio.is_nonzero and (relation == Relation.equation or ratio.is_positive))


@lru_cache(maxsize=8192)
def parse(text: str) -> Expr:
    """Returns a canonical scalar as a sympy expression. Raises Unreadable."""
    latex = _to_parsable_latex(text)
    try:
        expression = latex2sympy(latex, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
        # sympy would evaluate dv/dt to 0; here it becomes a symbol.
        derivatives = (each for each in expression.atoms(Derivative) if not each.expr.has(*each.variables))
        symbols = {derivative: Symbol(f"({derivative})") for derivative in derivatives}
        expression = expression.subs({**symbols, Symbol("i", real=True): I})
    except MemoryError:
        raise
    except Exception as error:  # the grammar raises bare Exceptions, and sympy exceptions of any type
        raise Unreadable(f"{text[:80]} is not an expression that Math-Verify can parse") from error
    if not isinstance(expression, Expr) or expression.has(zoo, nan):
        raise Unreadable(f"{text[:80]} has no value")
    return expression


_BASE = re.compile(r"\d_\{")
_SPLIT_DIGITS = re.compile(r"\d ?(?: \d|\{)")
_HIDING = re.compile(r"\\(?:[hv]?phantom|[bx]?cancel|(?:text)?color|label|tag|[hv]space)(?![A-Za-z])")
_NUMBER = re.compile(
    r"(?<![\d.])(?:\d*\.\d*\\overline\{\d+\}|\d+\\frac\{\d+\}\{\d+\}|(?:\d*\.\d+|\d+)[eE][+-]?\d{1,3}(?!\d)|\d*\.\d+)"
)
# A letter or command with its power, subscript and primes; the power may come before the subscript.
_SYMBOL = re.compile(r"(\\text\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z])((?:\^\{[^{}]*\})?)(?:_\{((?:[^{}]|\{[^{}]*\})*)\})?('*)")
_PRODUCT = re.compile(r"(?<=[0-9)]) ?(?=[(\[]|\\binom)")
_DIVISOR_OF_VARIABLES = re.compile(r"\\(?:gcd|lcm) ?\(?[^()]*[A-Za-z]")
_PLAIN_WORD = re.compile(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS | GREEK - {'mu', 'nu', 'xi'})})(?![A-Za-z])")
_DIFFERENTIAL = re.compile(r"\\int(?![A-Za-z])|\\frac\{d")
_ROOT_OF_PARENTHESES = re.compile(r"\\sqrt ?\(([^()]*)\)")
_DEGREES = re.compile(r"(\d+|[A-Za-z])\^\{\\circ\}")


def _to_parsable_latex(text: str) -> str:
    r"""Returns `text` in the part of LaTeX that latex2sympy parses correctly. Raises Unreadable.

    >>> _to_parsable_latex(r"0.5R_{\text{max}}")
    '(\\frac{1}{2}) x_{Rmax}'
    """
    if _BASE.search(text):
        raise Unreadable(f"{text[:80]} has a number in another base")
    if _SPLIT_DIGITS.search(text):
        raise Unreadable(f"{text[:80]} has two numbers without an operator between them")
    if _HIDING.search(text):
        raise Unreadable(f"{text[:80]} hides or strikes out some of its text")
    if _DIVISOR_OF_VARIABLES.search(text):
        raise Unreadable(f"{text[:80]} has a gcd or lcm of variables, which sympy cannot evaluate")
    text = _NUMBER.sub(_as_fraction, _PLAIN_WORD.sub(r"\\\1 ", text))
    text = _PRODUCT.sub("*", text)  # otherwise latex2sympy takes 2(3) for a mixed number
    if "\\circ" in text:
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}" if TRIGONOMETRIC.search(text) else r"\1", text)
    text = _ROOT_OF_PARENTHESES.sub(r"\\sqrt{\1}", text)
    return _SYMBOL.sub(_as_symbol, text)


def _as_fraction(match: re.Match[str]) -> str:
    number = as_number(match.group())
    assert number is not None, "the pattern matches numbers only"
    value = number.value
    return rf"(\frac{{{value.numerator}}}{{{value.denominator}}})"


_AS_LETTERS = str.maketrans(
    {"+": "Plus", "-": "Minus"} | {str(digit): letter for digit, letter in enumerate("zyxwvutsrq")}
)


def _as_symbol(match: re.Match[str]) -> str:
    r"""Renames R_{\text{max}}' to x_{Rmaxprime}: latex2sympy knows few subscripts and takes \gamma for a function."""
    base, power, subscript, primes = match.groups(default="")
    is_text = base.startswith("\\text{")
    if base[0] == "\\" and not is_text and base[1:] not in GREEK:
        return match.group()
    # latex2sympy reads E as e, and d as in dx
    is_misread = base == "E" or (base == "d" and not _DIFFERENTIAL.search(match.string))
    if subscript or primes or base[1:] in GREEK or is_misread:
        name = re.sub(r"\\text|[^A-Za-z]", "", (base + subscript).translate(_AS_LETTERS))
        return rf" x_{{{name}{'prime' * len(primes)}}}{power}"
    return f" {base[6:-1]} {power}" if is_text and len(base) == 8 else match.group()


_STEPWISE = (Abs, Max, Min, Mod, Piecewise, ceiling, floor, sign)
_DIGITS = 150  # precision of a computed difference
_ZERO = Rational(1, 10**100)  # a difference below this x the values is 0 with rounding errors
_HUGE = 10**90  # for values above this, a difference of 1 would count as 0


def _same_values(left: Expr, right: Expr) -> bool | None:
    """Whether two expressions agree to 100 digits at one point with positive variables; None if that proves nothing.

    Analytic functions that agree there are taken to be the same. This is much faster than `simplify` and decides more.
    """
    difference = (left - right).doit()
    if difference.is_Rational:
        return bool(difference == 0)
    symbols = left.free_symbols | right.free_symbols
    point = {symbol: _sample_value(str(symbol)) for symbol in symbols}
    sizes = [abs(side.evalf(subs=point)) for side in (left, right)]
    remainder = abs(difference.evalf(subs=point, maxn=_DIGITS))
    if not all(value.is_number and value.is_finite for value in (*sizes, remainder)):
        return None
    if remainder > _ZERO * max(sizes):
        return False
    return None if max(sizes) > _HUGE or (symbols and difference.has(*_STEPWISE)) else True


def _same_logarithms(difference: Expr) -> bool:
    """Whether a difference with logarithms, such as ln(x^2) - 2 ln|x|, is 0: then exp(2 x difference) is 1."""
    if not difference.has(log) or not difference.has(Abs):
        return False
    natural = difference.replace(log, _natural_logarithm)
    for scale in (1, -1, 1000, -1000):
        point = {symbol: scale * _sample_value(str(symbol)) for symbol in difference.free_symbols}
        if abs(natural.evalf(subs=point, maxn=_DIGITS)) > _ZERO:
            return False
    return simplify(exp(2 * natural)) == 1


def _natural_logarithm(value: Expr, base: Expr = E) -> Expr:
    logarithm = log(value.args[0] ** 2) / 2 if isinstance(value, Abs) else log(value)
    return logarithm if base == E else logarithm / log(base)


def _sample_value(name: str) -> Rational:
    """Returns a value between 1 and 2 for a variable. No answer is likely to contain it."""
    return 1 + Rational(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big"), 2**32 - 5)


def _is_rounded(decimal: Number | None, value: Expr) -> bool:
    """Whether `decimal` is the irrational `value`, truncated or rounded."""
    if decimal is None or value.free_symbols or not value.is_real or value.is_rational:
        return False
    return approximates(decimal, Fraction(str(value.evalf(60))))
