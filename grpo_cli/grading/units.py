"""Units of measure: `5\\text{ cm}` is 5 with a unit, and neither 5 m nor 5 cm^2.

Words behind a value are its unit only if they are in the closed list (`unit_names.py`, `count_nouns.py`). Any other
words are kept as such: an answer may have them only where the gold has the same.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from grpo_cli.grading.count_nouns import ADJECTIVES, NOUNS
from grpo_cli.grading.latex import FUNCTIONS, Unreadable
from grpo_cli.grading.rational import as_number
from grpo_cli.grading.unit_names import AMBIGUOUS, CURRENCY_SIGNS, MULTIPLIERS, NAMES, SUBUNITS, SYMBOLS


@dataclass(frozen=True, slots=True)
class Scalar:
    """An expression, its unit, "" where it has none, and words behind it that are no unit."""

    text: str
    unit: str = ""
    words: str = ""


TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NUMBER = r"[+-]?(?:\d[\d.]*(?: ?\d+/\d+|/\d+)?|\.\d+|\d*\\frac\{\d+\}\{\d+\})(?:\*10\^\{-?\d+\})?"
_NUMBER_WITH_WORDS = re.compile(rf"({_NUMBER})( ?)((?:\\mu ?)?[A-Za-z][A-Za-z .,'/^{{}}()*\d\-]*|\\Omega)")
_VALUE_WITH_WORDS = re.compile(
    r"((?:[^A-Za-z\\]|\\(?!text)[A-Za-z]+)*(?:[)}]|\\pi(?= ))) ?([A-Za-z]{2}[A-Za-z ./^{}\d\-]*)"
)
_TAIL = re.compile(
    r"(?:\\text\{(?:[^{}]|\{[^{}]*\})*\}|\\(?:mu|Omega)(?![A-Za-z])|\^\{-?\d+\}|\^\{\\circ\}|[ /*(),.])*"
)
_TAIL_STARTS = ("\\frac{", "\\mu", "\\Omega", "^{\\circ}", "(", "/", "*", " ")
_FRACTION_OF_UNITS = re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}")
_DIGIT = re.compile(r"(?<!\^)(?<!\^-)\d")  # outside of an exponent


def split_unit(text: str) -> Scalar:
    """An expression and its unit. Raises Unreadable for a unit that hides a second number."""
    text = _CODE_BEFORE.sub(_code_behind, text)
    sign = next((sign for sign in CURRENCY_SIGNS if text.startswith((sign, "-" + sign)) or text.endswith(sign)), None)
    if sign is None:
        return _split_words(text)
    scalar, currency = _split_words(text.replace(sign, "", 1).strip(" ")), CURRENCY_SIGNS[sign]
    if scalar.unit in ("", currency):
        return Scalar(scalar.text, currency, scalar.words)
    if scalar.unit.startswith("/"):  # $5 per hour
        return Scalar(scalar.text, currency + scalar.unit, scalar.words)
    raise Unreadable(f"a currency with the unit {scalar.unit}")


_CODE_BEFORE = re.compile(r"(USD|US\\\$|EUR|GBP|Rs\.?) ?(?=\d)")


def _code_behind(match: re.Match[str]) -> str:
    code = {"USD": r"\$", r"US\$": r"\$", "EUR": "€", "GBP": "£"}
    return code.get(match[1], "₹")


def _split_words(text: str) -> Scalar:
    if (start := text.find("\\text{")) > 0:
        while (before := next((piece for piece in _TAIL_STARTS if text.endswith(piece, 0, start)), None)) is not None:
            start -= len(before)
        if start > 0 and (found := _with_tail(text[:start].rstrip(" "), text[start:])):
            return found
        return Scalar(text)
    if (match := _NUMBER_WITH_WORDS.fullmatch(text)) and _are_words(match[3], spaced=bool(match[2])):
        return _measured(match[1], match[3])
    if (match := _VALUE_WITH_WORDS.fullmatch(text)) and (len(match[2]) > 2 or match[2] in _GLUED):
        unit = known_unit(match[2])
        if unit:
            return Scalar(match[1], unit)
    return _split_sign(text)


def _with_tail(value: str, tail: str) -> Scalar | None:
    """A value and what stands behind it as text; None where that is part of an expression."""
    if match := _FRACTION_OF_UNITS.fullmatch(tail):
        tail = f"{match[1]}/({match[2]})"
    if not _TAIL.fullmatch(tail):
        return None
    words = re.sub(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", tail)
    if any(char.isalpha() for char in re.sub(r"\\[A-Za-z]+", "", words)) and _is_letter(words):
        return None  # 2\text{x} is a product
    if not re.sub(r"[ .,()]", "", words):
        return _split_sign(value)
    return _measured(value, words)


def _is_letter(words: str) -> bool:
    bare = words.strip(" ")
    return len(bare) == 1 and known_unit(bare) is None


_TEMPERATURE = re.compile(r"(.*)\^\{\\circ\} ?([CF])")


def _split_sign(text: str) -> Scalar:
    if text.endswith("%"):
        return Scalar(text.rstrip("% "), "%")
    if match := _TEMPERATURE.fullmatch(text):
        return Scalar(match[1], f"deg{match[2]}")
    if text.endswith(r"^{\circ}") and not TRIGONOMETRIC.search(text):
        return Scalar(text.removesuffix(r"^{\circ}"), "degree")
    return Scalar(text)


_GLUED = frozenset(
    ["mm", "cm", "km", "kg", "ft", "in", "yd", "mi", "lb", "oz", "ml", "mL", "hr"]
)  # `5cm`; `2mg` is m times g
_SPACED = _GLUED | {"mg", "nm", "pm", "ms", "ns"}


def _are_words(text: str, spaced: bool) -> bool:
    """Whether what follows a number are words (`7 apples`, `7cm`) and not variables (`7 n`, `7ab`)."""
    first = re.match("[A-Za-z]*", text)[0]
    if FUNCTIONS.intersection(text.split()) or (len(first) < 2 and text[0] != "\\"):
        return False
    if len(first) == 2 and first not in (_SPACED if spaced else _GLUED) and not (spaced and first[1].isupper()):
        return False
    if spaced and len(first) > 2:
        return True
    unit = known_unit(text)
    return unit is not None and (spaced or not unit.startswith("#"))


def _measured(value: str, words: str) -> Scalar:
    """A value with the words behind it: times a million, in a unit, or followed by words that say something else."""
    count, _, rest = words.strip(" ").partition(" ")
    while multiplier := MULTIPLIERS.get(count.lower().strip(".,")):
        number = as_number(value)
        value = f"({value})*{multiplier}" if number is None else str(number.value * multiplier)
        words = rest
        count, _, rest = words.strip(" ").partition(" ")
    if not words.strip(" "):
        return _split_sign(value)
    unit = known_unit(words)
    if unit is None:
        if _DIGIT.search(words):
            raise Unreadable("a second number after the first")
        return Scalar(value, words=" ".join(re.findall(r"\w+", words.lower())) or words.strip(" "))
    if value.endswith(r"^{\circ}"):
        raise Unreadable("degrees of another unit")
    return Scalar(value, unit)


# Several words or signs that are one name.
_ONE_NAME = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\^ ?\\circ ?(?=[CF]\b)|\bdegrees? (?=[CF]\b)", "deg"),
        (r"(?i)\b(?:degrees? )?(?:celsius|centigrade)\b", "degC"), (r"(?i)\b(?:degrees? )?fahrenheit\b", "degF"),
        (r"\\mu ?|\u00b5|\u03bc", "u"), (r"\\Omega\b|\u2126|\u03a9", "ohm"), (r"(?<=[A-Za-z])-(?=[A-Za-z])", " "),
        (r"(?i)\blight years?\b", "ly"), (r"(?i)\bnautical miles?\b", "nmi"), (r"(?i)\belectron volts?\b", "eV"),
        (r"(?i)\bmetric tons?\b", "t"), (r"(?i)\b(?:per ?cent(?:age points?)?|percentage(?: points?)?|pct)\b", "%"),
        (r"(?i)\bper\b", "/"), (r"(?i)\b(?:square|sq)\b\.?(?= ?\S)", "2^"), (r"(?i)\b(?:cubic|cu)\b\.?(?= ?\S)", "3^"),
        (r"(?i)(?<=[a-z]) squared\b", "^2"), (r"(?i)(?<=[a-z]) cubed\b", "^3"),
    )
]  # fmt: skip
_SAYS_NOTHING = re.compile(
    r"(?i) (?:old|long|tall|wide|high|deep|away|apart|each|total|altogether|left|in (?:all|total)|of (?:the |an? )?)$"
)
_TOKEN = re.compile(
    r"(?P<power>[23]\^)|(?P<exponent>\^-?\d+)|(?P<over>/)|(?P<word>[A-Za-z][A-Za-z']*\.?|%)|[ *()]|(?P<other>.)"
)


@lru_cache(maxsize=4096)
def known_unit(words: str) -> str | None:
    """The unit in one spelling, "" for mere `units`, # before what is counted; None where a word is in no list.

    >>> known_unit("square inches"), known_unit("cm^{2}"), known_unit("miles per hour"), known_unit("red apples")
    ('in^2', 'cm^2', 'mi/h', '#apple red')
    >>> known_unit("apples or so") is None
    True
    """
    words = words.replace("{", "").replace("}", "").strip(" .,")
    for pattern, name in _ONE_NAME:
        words = pattern.sub(name, words)
    measure, _, substance = words.partition(" of ")
    words = _SAYS_NOTHING.sub("", measure)
    if substance and not (_factors(substance) or {"": 0}).keys() <= NOUNS | ADJECTIVES:
        return None
    factors = _factors(words)
    if factors is None:
        return None
    counted = factors.keys() & (NOUNS | ADJECTIVES)
    if counted and counted == factors.keys():
        return None if not counted & NOUNS else "#" + " ".join(sorted(counted))
    over = [f"/{_to_power(unit, -size)}" for unit, size in sorted(factors.items()) if size < 0]
    return "*".join(_to_power(unit, size) for unit, size in sorted(factors.items()) if size > 0) + "".join(over)


def _to_power(unit: str, exponent: int) -> str:
    return unit if exponent == 1 else f"{unit}^{exponent}"


def _factors(words: str) -> Counter[str] | None:
    """The power of each name in a product of units; all behind a slash is divided by. None where a name is unknown."""
    factors: Counter[str] = Counter()
    last: dict[str, int] | None = None
    side, power = 1, 1
    for token in _TOKEN.finditer(words):
        if token["other"]:
            return None
        if token["over"]:
            side = -1
        elif token["power"]:
            power = int(token["power"][0])
        elif token["exponent"]:
            if last is None:
                return None
            factors.update({unit: size * (int(token["exponent"][1:]) - 1) for unit, size in last.items()})
            last = None
        elif word := token["word"]:
            made_of = _lookup(word.rstrip("."))
            if made_of is None:
                return None
            last = {unit: size * power * side for unit, size in made_of.items()}
            factors.update(last)
            power = 1
    return factors if power == 1 else None


def _lookup(word: str) -> dict[str, int] | None:
    if word in SYMBOLS:
        return SYMBOLS[word]
    word = word.lower()
    for name in (word, word.removesuffix("s")) if len(word) > 2 else (word,):
        if name in NAMES:
            return NAMES[name]
    singular = (word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y")
    return next(({name: 1} for name in singular if name in NOUNS or name in ADJECTIVES), None)


def compatible(gold: str, answer: str) -> bool:
    """Whether two units may be the same: each that is given, where one of the two has more than one reading."""
    if not gold or not answer or gold == answer or frozenset((gold, answer)) in AMBIGUOUS:
        return True
    counted = [set(unit[1:].split()) for unit in (gold, answer) if unit[0] == "#"]
    return len(counted) == 2 and (counted[0] <= counted[1] or counted[1] <= counted[0])


def in_subunits(one: Scalar, other: Scalar) -> tuple[str, str]:
    """Both values in the smaller unit, as dollars in cents; otherwise as they are."""
    if number := SUBUNITS.get((one.unit, other.unit)):
        return f"{number}*({one.text})", other.text
    if number := SUBUNITS.get((other.unit, one.unit)):
        return one.text, f"{number}*({other.text})"
    return one.text, other.text


def without_unit(scalar: Scalar, unit: str) -> str:
    """`10 m` as 10, where it is known from the other side that m is a unit here and no variable."""
    match = _NUMBER_WITH_WORDS.fullmatch(scalar.text) if unit and not scalar.unit else None
    return match[1] if match and known_unit(match[3]) == unit else scalar.text
