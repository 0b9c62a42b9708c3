"""Units of measure: `5\\text{ cm}` is 5 with the unit cm, which equals neither 5 m nor 5 cm^2.

Words after a value are its unit only if all are in the lists of `unit_names.py` or of `count_nouns.py`: `7 apples pie`
is 7, since no listed word changes the value. Other words are kept as words: an answer may have them only if the gold
has the same.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_letters

from grpo_cli.grading.count_nouns import ADJECTIVES, NOUNS
from grpo_cli.grading.latex import FUNCTIONS, Unreadable
from grpo_cli.grading.rational import as_number
from grpo_cli.grading.unit_names import AMBIGUOUS, CURRENCY_SIGNS, MULTIPLIERS, NAMES, SUBUNITS, SYMBOLS


@dataclass(frozen=True, slots=True)
class Scalar:
    """An expression, its unit ("" if it has none), and words after it that are not a unit."""

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
_DIGIT = re.compile(r"(?<!\^)(?<!\^-)\d")  # outside exponents


def split_unit(text: str) -> Scalar:
    """Returns an expression with its unit. Raises Unreadable if a second number follows the first."""
    text = _CURRENCY_CODE.sub(_to_currency_sign, text)
    sign = next((sign for sign in CURRENCY_SIGNS if text.startswith((sign, "-" + sign)) or text.endswith(sign)), None)
    if sign is None:
        return _split_words(text)
    scalar, currency = _split_words(text.replace(sign, "", 1).strip(" ")), CURRENCY_SIGNS[sign]
    if scalar.unit in ("", currency):
        return Scalar(scalar.text, currency, scalar.words)
    if scalar.unit.startswith("/"):  # $5 per hour
        return Scalar(scalar.text, currency + scalar.unit, scalar.words)
    raise Unreadable(f"a currency is followed by the unit {scalar.unit}")


_CURRENCY_CODE = re.compile(r"(USD|US\\\$|EUR|GBP|Rs\.?) ?(?=\d)")


def _to_currency_sign(match: re.Match[str]) -> str:
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
        return _parse_measure(match[1], match[3])
    if (match := _VALUE_WITH_WORDS.fullmatch(text)) and (len(match[2]) > 2 or match[2] in _GLUED):
        unit = normalize_unit(match[2])
        if unit:
            return Scalar(match[1], unit)
    return _split_sign(text)


def _with_tail(value: str, tail: str) -> Scalar | None:
    """Returns a value with the text after it; None if that text is part of an expression."""
    if match := _FRACTION_OF_UNITS.fullmatch(tail):
        tail = f"{match[1]}/({match[2]})"
    if not _TAIL.fullmatch(tail):
        return None
    words = re.sub(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", tail)
    if any(char.isalpha() for char in re.sub(r"\\[A-Za-z]+", "", words)) and _is_letter(words):
        return None  # 2\text{x} is a product
    if not re.sub(r"[ .,()]", "", words):
        return _split_sign(value)
    return _parse_measure(value, words)


def _is_letter(words: str) -> bool:
    bare = words.strip(" ")
    return len(bare) == 1 and normalize_unit(bare) is None


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
)  # may follow a number without a space: `5cm` has a unit, but `2mg` is 2 times m times g
_SPACED = _GLUED | {"mg", "nm", "pm", "ms", "ns"}


def _are_words(text: str, spaced: bool) -> bool:
    """Whether words (`7 apples`, `7cm`) follow a number, not variables (`7 n`, `7ab`)."""
    first = text[: len(text) - len(text.lstrip(ascii_letters))]
    if FUNCTIONS.intersection(text.split()) or (len(first) < 2 and text[0] != "\\"):
        return False
    if len(first) == 2 and first not in (_SPACED if spaced else _GLUED) and not (spaced and first[1].isupper()):
        return False
    if spaced and len(first) > 2:
        return True
    unit = normalize_unit(text)
    return unit is not None and (spaced or not unit.startswith("#"))


def _parse_measure(value: str, words: str) -> Scalar:
    """Returns a value with the words after it: multipliers (million), a unit, or other words. Raises Unreadable."""
    count, _, rest = words.strip(" ").partition(" ")
    while multiplier := MULTIPLIERS.get(count.lower().strip(".,")):
        number = as_number(value)
        value = f"({value})*{multiplier}" if number is None else str(number.value * multiplier)
        words = rest
        count, _, rest = words.strip(" ").partition(" ")
    if not words.strip(" "):
        return _split_sign(value)
    unit = normalize_unit(words)
    if unit is None:
        if _DIGIT.search(words):
            raise Unreadable("a second number follows the first")
        return Scalar(value, words=" ".join(re.findall(r"\w+", words.lower())) or words.strip(" "))
    if value.endswith(r"^{\circ}"):
        raise Unreadable("a degree sign is followed by another unit")
    return Scalar(value, unit)


# Several words or signs that form one name.
_MULTI_WORD_NAMES = [
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
_FILLER = re.compile(
    r"(?i) (?:old|long|tall|wide|high|deep|away|apart|each|total|altogether|left|in (?:all|total)|of (?:the |an? )?)$"
)
_TOKEN = re.compile(
    r"(?P<power>[23]\^)|(?P<exponent>\^-?\d+)|(?P<over>/)|(?P<word>[A-Za-z][A-Za-z']*\.?|%)|[ *()]|(?P<other>.)"
)


@lru_cache(maxsize=4096)
def normalize_unit(words: str) -> str | None:
    """Returns the unit in canonical spelling; None if a word is not in any list.

    `units` alone gives "", and nouns for counted things begin with #.

    >>> [normalize_unit(words) for words in ("square inches", "cm^{2}", "miles per hour", "red apples")]
    ['in^2', 'cm^2', 'mi/h', '#apple red']
    >>> normalize_unit("apples or so") is None
    True
    """
    words = words.replace("{", "").replace("}", "").strip(" .,")
    for pattern, name in _MULTI_WORD_NAMES:
        words = pattern.sub(name, words)
    measure, _, substance = words.partition(" of ")
    words = _FILLER.sub("", measure)
    if substance and not (_factors(substance) or {"": 0}).keys() <= NOUNS | ADJECTIVES:
        return None
    factors = _factors(words)
    if factors is None:
        return None
    counted = factors.keys() & (NOUNS | ADJECTIVES)
    if counted and counted == factors.keys():
        return None if not counted & NOUNS else "#" + " ".join(sorted(counted))
    divisors = [f"/{_to_power(unit, -power)}" for unit, power in sorted(factors.items()) if power < 0]
    return "*".join(_to_power(unit, power) for unit, power in sorted(factors.items()) if power > 0) + "".join(divisors)


def _to_power(unit: str, exponent: int) -> str:
    return unit if exponent == 1 else f"{unit}^{exponent}"


def _factors(words: str) -> Counter[str] | None:
    """Returns the power of each unit in a product; None if a name is unknown. All units after a slash are divisors."""
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


def units_match(gold: str, answer: str) -> bool:
    """Whether two units may mean the same; a missing unit matches every unit."""
    if not gold or not answer or gold == answer or frozenset((gold, answer)) in AMBIGUOUS:
        return True
    counted = [set(unit[1:].split()) for unit in (gold, answer) if unit[0] == "#"]
    return len(counted) == 2 and (counted[0] <= counted[1] or counted[1] <= counted[0])


def convert_to_subunits(first: Scalar, second: Scalar) -> tuple[str, str]:
    """Returns both values in the smaller unit if one is in dollars and the other in cents; otherwise unchanged."""
    if number := SUBUNITS.get((first.unit, second.unit)):
        return f"{number}*({first.text})", second.text
    if number := SUBUNITS.get((second.unit, first.unit)):
        return first.text, f"{number}*({second.text})"
    return first.text, second.text


def strip_unit(scalar: Scalar, unit: str) -> str:
    """Returns `10 m` as 10 if `unit`, the other side's unit, shows that m is a unit here and not a variable."""
    match = _NUMBER_WITH_WORDS.fullmatch(scalar.text) if unit and not scalar.unit else None
    return match[1] if match and normalize_unit(match[3]) == unit else scalar.text
