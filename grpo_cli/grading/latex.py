# ruff: noqa: RUF001  (the look-alikes are what this module is about)
r"""Normalises the spelling of answers: `\dfrac 1 2`, `\frac12` and `½` all become `\frac{1}{2}`.

Only the spelling changes; no mathematics is done here. Every function takes linear time.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

MAX_CHARS = 16_384  # longer answers are rejected without being read

GREEK = frozenset(
    [
        "alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda",
        "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar",
    ]
)  # fmt: skip
FUNCTIONS = frozenset(
    [
        "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "arcsin", "arccos", "arctan", "sinh",
        "cosh", "tanh", "pi", "inf",
    ]
)  # fmt: skip


class Unreadable(ValueError):
    """Raised for text that is not a readable answer; the message says why."""


# Different spellings of the same symbol. Commands that are not listed are kept.
_COMMANDS = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac",
    r"\bf": "", r"\rm": "", r"\it": "",
    r"\left": "", r"\right": "", r"\big": "", r"\Big": "", r"\bigg": "", r"\Bigg": "",
    r"\bigl": "", r"\bigr": "", r"\Bigl": "", r"\Bigr": "", r"\biggl": "", r"\biggr": "", r"\middle": "",
    r"\displaystyle": "", r"\textstyle": "", r"\limits": "", r"\nolimits": "",
    r"\quad": " ", r"\qquad": " ", "\\ ": " ", r"\;": " ", r"\:": " ", r"\>": " ", r"\!": "", r"\,": "\u2009",
    r"\(": "", r"\)": "", r"\[": "", r"\]": "", "$": "", "~": " ",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\langle": "(", r"\rangle": ")",
    r"\lvert": "|", r"\rvert": "|", r"\vert": "|", r"\colon": ":",
    r"\leq": r"\le ", r"\leqslant": r"\le ", r"\geq": r"\ge ", r"\geqslant": r"\ge ", r"\neq": r"\ne ",
    r"\lt": "<", r"\gt": ">", r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/",
    r"\varnothing": r"\emptyset", r"\infin": r"\infty", r"\degree": r"^\circ", r"\lor": " or ", r"\vee": " or ",
    r"\land": " and ", r"\wedge": " and ", r"\simeq": r"\approx", r"\thickapprox": r"\approx", r"\%": "%",
    r"\epsilon": r"\varepsilon", r"\phi": r"\varphi", r"\to": r"\rightarrow", r"\ldots": r"\dots",
    r"\cdots": r"\dots", r"\lnot": r"\neg",
}  # fmt: skip

_UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ",
        "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ", "∅": r"\emptyset ", "√": r"\sqrt ", "°": r"^\circ ",
        "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ",
        "λ": r"\lambda ", "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\varphi ",
        "ω": r"\omega ", "Δ": r"\Delta ", "Σ": r"\Sigma ", "Ω": r"\Omega ",
        "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}",
        "²": "^2", "³": "^3", "¹": "^1", "⁴": "^4", "\u00b5": r"\mu ", "\u2126": r"\Omega ",
        "′": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ",
        "\u2009": r"\,", "\u202f": r"\,", "…": r"\dots ", "，": ", ", "（": "(", "）": ")",
        "\t": " ", "\n": " ", "\r": " ", "\f": " ", "\v": " ",
    }
)  # fmt: skip


_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# The names listed first are often written without a space before the next letter.
_COMMAND = re.compile(r"\\(?:q?quad|[lg]eqslant|[lgn]eq|times|cdot(?!s)|[A-Za-z]+|.)|[$~]")
_NULL_DELIMITER = re.compile(r"\\(?:left|right) ?\.")
_THIN = "\u2009"  # thin space: it may separate groups of three digits
_GROUP_COMMA = re.compile(r" ?\{ ?, ?\} ?|, ?\\! ?")
_GROUPED_BY_COMMA = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_GROUPED_BY_SPACE = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:{_THIN}\d{{3}})+(?!\d)")
_CURRENCY = re.compile(r"(?<!\\)\$(?= ?[\d.])|(?<=\d)(?<!\\)\$")
_COLOR = re.compile(r"\\color ?\{ ?[A-Za-z]+ ?\} ?")
_DOTTED_PERIOD = re.compile(r"(?<=\.)(\d*)\\dot ?\{?(\d)\}?(\d*)\\dot ?\{?(\d)\}?")
_PERIOD = re.compile(r"(?<=\.)(\d*)\\(?:bar|dot|overline) ?(?:\{(\d+)\}|(\d))")
_TEXT_JOINT = re.compile(r"\\text ?\{[ ,]*(and|or|AND|OR)[ ,]*\}")
_SCRIPT = re.compile(r"([_^]) ?(-?(?:\d+|[A-Za-z])|\\(?!frac|sqrt|text|math|over)[A-Za-z]+)")
_POWER_IN_PARENTHESES = re.compile(r"\^\(([^()]*)\)")
_PRIME = re.compile(r"\^\{\\prime\}")
_SHORT_ARGUMENT = re.compile(
    r"(\\(?:frac|sqrt|binom|mathbb|pmod)(?:\[[^][{}]*\])?) ?([A-Za-z0-9]|\\(?:pi|alpha|beta|theta)(?![A-Za-z]))"
)
_SHORT_DENOMINATOR = re.compile(
    r"(\\(?:frac|binom)\{(?:[^{}]|\{[^{}]*\})*\}) ?([A-Za-z0-9]|\\(?:pi|alpha|beta|theta)(?![A-Za-z]))"
)
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])|(?<=\\text) ")
_SPACE_AFTER_COMMAND = re.compile(r"(\\[A-Za-z]+) (?![A-Za-z])")


def check_readable(text: str) -> None:
    """Raise Unreadable if the text may not be what it looks like: controls, look-alike digits, stacked accents."""
    if text.isascii() and text.isprintable():
        return
    for char in text:
        category = unicodedata.category(char)
        if category[0] in "CM" or (category[0] == "N" and not char.isascii()):
            raise Unreadable(f"the character U+{ord(char):04X} is not a plain letter, digit or symbol")


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    r"""Returns `text` in canonical spelling. Raises Unreadable.

    >>> canonical(r" $\dfrac 1 2\,$. ")
    '\\frac{1}{2}'
    >>> canonical(r"x = 1{,}234\text{ cm}")
    'x=1234\\text{cm}'
    """
    text = text.strip(" \t\n\r\f\v")
    if len(text) > MAX_CHARS:
        raise Unreadable(f"longer than {MAX_CHARS} characters")
    if _PLAIN_NUMBER.fullmatch(text) and text.isascii():
        return text
    text = text.translate(_UNICODE)
    check_readable(text)
    if "boxed" in text or "\\fbox" in text:
        text = unboxed(text)
    if "\\begin" not in text:  # only a matrix has line ends: elsewhere \\\\frac is \\frac escaped twice
        text = text.replace("\\\\", "\\")
    if text.endswith("\\") and not text.endswith("\\\\"):  # the rest of a control space
        text = text[:-1]
    if text.count("$") - text.count("\\$") == 1:  # a currency sign, not a pair of delimiters
        text = _CURRENCY.sub(r"\\$", text)
    if text.startswith("\\color"):
        text = _COLOR.sub("", text, count=1)
    text = _GROUP_COMMA.sub(_THIN, _NULL_DELIMITER.sub("", text.replace("{:}", ":")))
    text = _COMMAND.sub(_replace_command, _FONT.sub(_resolve_font, text))
    text = _TEXT_JOINT.sub(r" \1 ", text).strip(" *`_")
    for operator, spelling in _OPERATORS:
        text = text.replace(operator, spelling)
    text = _GROUPED_BY_SPACE.sub(lambda number: number.group().replace(_THIN, ""), text).replace(_THIN, " ")
    if not any(bracket in text for bracket in "(["):
        text = _GROUPED_BY_COMMA.sub(lambda number: number.group().replace(",", ""), text)
    text = _LOOSE_SPACE.sub("", " ".join(text.split()))
    if "." in text:
        text = _PERIOD.sub(r"\1\\overline{\2\3}", _DOTTED_PERIOD.sub(r"\1\\overline{\2\3\4}", text))
    text = _SCRIPT.sub(r"\1{\2}", _POWER_IN_PARENTHESES.sub(r"^{\1}", text))
    text = _PRIME.sub("'", text)
    text = _SHORT_DENOMINATOR.sub(r"\1{\2}", _SHORT_ARGUMENT.sub(r"\1{\2}", text))
    return _SPACE_AFTER_COMMAND.sub(r"\1", text).rstrip(" .,;:").lstrip(" ,;:")


_OPERATORS = [("...", r"\dots "), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), ("==", "="), ("**", "^")]


def _replace_command(command: re.Match) -> str:
    return _COMMANDS.get(command.group(), command.group())


_FONT = re.compile(
    r"\\(text(?:bf|it|rm|normal|sf)?|mbox|math(?:rm|bf|it|sf)|boldsymbol|bm|operatorname\*?)(?![A-Za-z])"
    r"(?: ?\{ ?(\\?[A-Za-z]+) ?\}(?=( ?[({])?)|)"
)
_NAMED_OPERATORS = FUNCTIONS - {"sec", "inf"} | {"gcd", "lcm", "lim", "det", "mod", "bmod"}
_ALSO_UNITS = {"sec", "min", "max", "inf"}  # operators only before a bracket; otherwise units, or names as in R_{\max}


def _resolve_font(match: re.Match) -> str:
    r"""Returns a font command's content: without the command if it is a mathematical symbol, else within \text{}."""
    font, content, called = match.groups(default="")
    is_text = font.startswith(("text", "mbox"))
    if content.startswith("\\") and not is_text:
        return content + " "
    if content in _NAMED_OPERATORS or (content in _ALSO_UNITS and called):
        return f"\\{content} "
    if len(content) == 1 and not is_text and (content in "eid" or font not in ("mathrm", "operatorname")):
        before = match.string[match.start() - 1 : match.start()]
        if content == "e" and before.isdigit():  # 2\\mathrm{e}3 is not 2 times 10^3
            return "*e"
        return f" {content}" if before.isalpha() else content
    return match.group().replace(font, "text", 1)


@dataclass(frozen=True, slots=True)
class Box:
    start: int
    end: int
    content: str


_BOX_OR_BRACE = re.compile(r"\\?\\f?boxed *\{|\\f?boxed (?=[A-Za-z0-9])|\\\\|\\[{}]|[{}]")


def boxes_in(text: str) -> list[Box] | None:
    r"""Returns the outermost boxes in order of their ends; None if a box is never closed."""
    boxes: list[Box] = []
    opened: list[tuple[int, int] | None] = []  # for each open brace: the starts of the box and its content, or None
    for token in _BOX_OR_BRACE.finditer(text):
        symbol = token.group()
        if symbol == "{":
            opened.append(None)
        elif "boxed" in symbol:
            if symbol.endswith("{"):
                opened.append((token.start(), token.end()))
            else:  # \boxed 7
                boxes.append(Box(token.start(), token.end() + 1, text[token.end()]))
        elif symbol == "}" and opened and (box := opened.pop()):
            while boxes and boxes[-1].start > box[0]:
                boxes.pop()
            boxes.append(Box(box[0], token.end(), text[box[1] : token.start()]))
    return None if any(opened) else boxes


def unboxed(text: str) -> str:
    r"""Returns `text` with X for each outermost `\boxed{X}`; adjacent boxes become a list. Raises Unreadable."""
    boxes = boxes_in(text)
    if boxes is None:
        raise Unreadable(r"\boxed{ is never closed")
    parts: list[str] = []
    end = 0
    for box in boxes:
        between = text[end : box.start]
        parts.append(", " if parts and not between.strip(" $") else between)
        parts.append(f" {box.content} ")
        end = box.end
    return "".join([*parts, text[end:]])
