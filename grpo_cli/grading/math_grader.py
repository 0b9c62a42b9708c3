r"""Decides whether an answer is equivalent to the gold answer.

Both are normalised (`latex.py`), parsed into lists, tuples, intervals, relations, units and so on (`parsing.py`), and
compared part by part. Only scalar expressions that neither spelling nor exact arithmetic can decide go to Math-Verify
(`symbolic.py`): on whole answers it takes `5,5` for 5, `{1,2}` for `(1,2)` and `204_5` for 204. Everything else is
plain Python that takes linear time, so most verdicts need no worker process.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto

from grpo_cli.grading.answers import (
    Answer,
    AnswerList,
    Bracketed,
    Chain,
    Choice,
    Clock,
    Equation,
    Inequality,
    Matrix,
    Ratio,
    Scalar,
    SolutionSet,
    TextAnswer,
)
from grpo_cli.grading.latex import Unreadable, canonical
from grpo_cli.grading.parsing import parse_answer
from grpo_cli.grading.rational import as_number, is_near, numbers_equal
from grpo_cli.grading.relations import name_key
from grpo_cli.grading.units import convert_to_subunits, strip_unit, units_match
from grpo_cli.types import Verdict

MAX_PARSED_CHARS = 1_000  # a longer answer is correct only if it is spelled like the gold


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str
    tests_passed: float = 0.0  # share of tests passed, if the answer is a program


class Undecided(Exception):
    """Raised if only Math-Verify can decide."""


class Relation(StrEnum):
    """The relation that must hold between two expressions."""

    equality = auto()  # their values are equal
    equation = auto()  # each = 0 gives equivalent equations: their ratio is a constant
    inequality = auto()  # each < 0 gives equivalent inequalities: their ratio is a positive constant


Algebra = Callable[[Relation, str, str], bool]


def no_algebra(relation: Relation, gold: str, answer: str) -> bool:
    raise Undecided


def judge(gold: str, answer: str, algebra: Algebra = no_algebra) -> Judgement:
    """Returns the verdict on `answer`. Raises Undecided if an `algebra` is needed and not given.

    A verdict reached without `algebra` is the same as with it.
    """
    try:
        gold, answer = canonical(gold), canonical(answer)
        if not answer:
            return Judgement(Verdict.unparsable, "the answer is empty")
        if gold == answer:
            return Judgement(Verdict.correct, "written like the gold answer")
        gold_number, number = as_number(gold), as_number(answer)
        if gold_number is not None and number is not None:
            equal = numbers_equal(gold_number, number)
        elif len(answer) > MAX_PARSED_CHARS:
            return Judgement(Verdict.unparsable, f"longer than {MAX_PARSED_CHARS} characters")
        else:
            equal = equivalent(parse_answer(gold), parse_answer(answer), algebra)
    except Unreadable as error:
        return Judgement(Verdict.unparsable, str(error))
    verdict, relation = (Verdict.correct, "equal to") if equal else (Verdict.wrong, "not")
    return Judgement(verdict, f"{relation} the gold answer")


def math_gold_fault(gold: str) -> str | None:
    """Returns why `gold` is not a valid gold answer; None if it is valid."""
    try:
        gold = canonical(gold)
        if not gold:
            return "it is empty"
        if len(gold) > MAX_PARSED_CHARS:
            return f"it is longer than {MAX_PARSED_CHARS} characters"
        parse_answer(gold)
    except Unreadable as error:
        return str(error)
    return None


def equivalent(gold: Answer, answer: Answer, algebra: Algebra) -> bool:
    """Whether `answer` means the same as `gold`. `gold` decides how strictly names and units are compared."""
    match gold, answer:
        case Equation(), Equation():
            named_alike = gold.name and answer.name and name_key(gold.name) == name_key(answer.name)
            if named_alike and gold.value is not None and answer.value is not None:
                return equivalent(gold.value, answer.value, algebra)
            if gold.left == answer.left:
                return _equal(gold.right, answer.right, algebra)
            if "," in gold.left + answer.left:
                return False
            return algebra(Relation.equation, _difference(gold), _difference(answer))
        case Equation(value=named), _ if named:
            return equivalent(named, answer, algebra)
        case _, Equation(value=named) if named:
            return equivalent(gold, named, algebra)
        case Chain(value=value), _:
            return equivalent(value, answer, algebra)
        case _, Chain(value=value):
            return equivalent(gold, value, algebra) and _chain_holds(answer, algebra)
        case Choice(), Choice():
            return gold.letter == answer.letter and equivalent(gold.text, answer.text, algebra)
        case (Choice(letter=letter), Scalar(text=text)) | (Scalar(text=text), Choice(letter=letter)) if (
            text in _LETTERS
        ):
            return text == letter
        case Choice(text=text), _:
            return equivalent(text, answer, algebra)
        case _, Choice(text=text):
            return equivalent(gold, text, algebra)
        case SolutionSet(), SolutionSet():
            return gold.variable == answer.variable and equivalent(gold.values, answer.values, algebra)
        case SolutionSet(), Bracketed() | AnswerList():
            return equivalent(gold.values, answer, algebra)
        case Bracketed() | AnswerList(), SolutionSet():
            return equivalent(gold, answer.values, algebra)
        case SolutionSet(inequality=Inequality() as inequality), Inequality():
            return equivalent(inequality, answer, algebra)
        case Inequality(), SolutionSet(inequality=Inequality() as inequality):
            return equivalent(gold, inequality, algebra)
        case Inequality(), Inequality():
            return gold.strict == answer.strict and algebra(
                Relation.inequality, f"{gold.low}-({gold.high})", f"{answer.low}-({answer.high})"
            )
        case AnswerList(is_impossible=False), AnswerList(is_impossible=True):
            return False
        case AnswerList(), AnswerList():
            return _same_items(gold.items, answer.items, algebra)
        case Bracketed(left="("), AnswerList() if _num_names(answer.items) == len(answer.items):  # x=1, y=2
            return _same_in_order(gold.items, answer.items, algebra)
        case AnswerList(), Bracketed(left="(") if _num_names(gold.items) == len(gold.items):
            return _same_in_order(gold.items, answer.items, algebra)
        case Bracketed(), Bracketed():
            return (gold.left, gold.right) == (answer.left, answer.right) and _same_in_order(
                gold.items, answer.items, algebra
            )
        case Matrix(), Matrix():
            return len(gold.rows) == len(answer.rows) and all(
                _same_in_order(*rows, algebra) for rows in zip(gold.rows, answer.rows, strict=True)
            )
        case TextAnswer(), TextAnswer():
            return _word_key(gold.text) == _word_key(answer.text)
        case Clock(), Clock():
            return _same_time(gold, answer)
        case Clock(am_pm=str() as am_pm), Scalar(text=text, unit="") if am_pm:  # 9 for 9 a.m.
            return text.isdigit() and _same_time(gold, Clock(int(text) * 3600, "", None))
        case Ratio(), Clock(ratio=Ratio() as ratio):
            return equivalent(gold, ratio, algebra)
        case Bracketed(left=":"), Clock(ratio=Bracketed() as ratio):
            return equivalent(gold, ratio, algebra)
        case Ratio(), Ratio():
            return _same_scalar(gold.value, answer.value, algebra)
        case Ratio(value=value), Scalar():
            return _same_scalar(value, answer, algebra)
        case Scalar(), Ratio(value=value):
            return _same_scalar(gold, value, algebra)
        case Scalar(), Scalar():
            return _same_scalar(gold, answer, algebra)
        case _, AnswerList(is_either=True):  # 2 or 4/2
            return all(equivalent(gold, item, algebra) for item in answer.items)
        case AnswerList(is_either=True), _:
            return all(equivalent(item, answer, algebra) for item in gold.items)
    return False


def _same_in_order(gold: tuple[Answer, ...], answer: tuple[Answer, ...], algebra: Algebra) -> bool:
    return len(gold) == len(answer) and all(equivalent(*pair, algebra) for pair in zip(gold, answer, strict=True))


def _same_items(gold: tuple[Answer, ...], answer: tuple[Answer, ...], algebra: Algebra) -> bool:
    if len(gold) != len(answer):
        return False
    if (_num_names(gold) > 1) != (_num_names(answer) > 1):  # x=1, y=2 equals 1, 2 but not 2, 1
        return _same_in_order(gold, answer, algebra)
    unmatched = list(answer)
    for item in gold:
        found = next((other for other in unmatched if equivalent(item, other, algebra)), None)
        if found is None:
            return False
        unmatched.remove(found)
    return True


def _num_names(items: tuple[Answer, ...]) -> int:
    return len({item.name for item in items if isinstance(item, Equation)})


_LETTERS = frozenset("ABCDEFGHIJ")


def _chain_holds(chain: Chain, algebra: Algebra) -> bool:
    """Whether a chain such as 2+2=4 is true. One that is false, such as 41=42, states two answers."""
    value = as_number(chain.value.text) if isinstance(chain.value, Scalar) else None
    if value and not all(is_near(value.value, decimal) for decimal in chain.near if decimal):
        return False
    return all(_side_equals(side, chain.value, algebra) for side in chain.equal)


def _side_equals(side: Answer, value: Answer, algebra: Algebra) -> bool:
    try:
        return equivalent(side, value, algebra)
    except Unreadable:
        if isinstance(side, Scalar) and _UNEVALUATED.search(side.text):
            return True  # it restates the question, which sympy cannot evaluate
        raise


# Operators of a computation that only restates the question.
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|coprod|i{0,3}int|oint|lim|limsup|liminf|gcd|lcm|max|min|sup|b?mod|pmod|det|arg|deg|dim|nabla)(?![A-Za-z])"
    r"|\\frac\{(?:d|\\partial)(?![a-z]\*)[^{}]*(?:\{\d+\})?\}\{(?:d|\\partial) ?[a-z]"
    r"|(?<![A-Za-z\\])(?:gcd|lcm|max|min|sum|prod|lim|mod)(?![A-Za-z])"
)


def _same_scalar(gold: Scalar, answer: Scalar, algebra: Algebra) -> bool:
    if answer.words and answer.words != gold.words:
        raise Unreadable(f"{answer.words!r} is not a unit")
    if gold.words and _VALUE_CHANGING.search(gold.words) and not answer.words:
        return False
    if _UNEVALUATED.search(answer.text) and not _UNEVALUATED.search(gold.text):
        raise Unreadable("repeats a computation instead of giving its value")
    if "%" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        return _same_percent(gold, answer, algebra)
    if gold.unit and answer.unit and gold.unit != answer.unit:
        values = convert_to_subunits(gold, answer)
        if values == (gold.text, answer.text) and not units_match(gold.unit, answer.unit):
            return False
        return _equal(*values, algebra)
    unit = gold.unit or answer.unit
    return _equal(strip_unit(gold, unit), strip_unit(answer, unit), algebra)


_VALUE_CHANGING = re.compile(
    r"\b(?:hal(?:f|ves)|third|quarter|fourth|fifth|sixth|eighth|tenth|hundredth|thousandth|millionth|squared|cubed|doubled"
    r"|tripled|inverse|reciprocal|factorial|negative|minus|plus|times|over|divided|base|mod(?:ulo)?|score|gross)s?\b"
)


_HALF_A_DAY = 12 * 3600


def _same_time(gold: Clock, answer: Clock) -> bool:
    """Whether two times are the same. One of them may lack a.m. or p.m. if it is before 13:00."""
    if gold.seconds == answer.seconds:
        return True
    unmarked = [clock.seconds for clock in (gold, answer) if not clock.am_pm]
    is_12_hour = len(unmarked) == 1 and unmarked[0] < _HALF_A_DAY + 3600
    return is_12_hour and (gold.seconds - answer.seconds) % _HALF_A_DAY == 0


def _same_percent(gold: Scalar, answer: Scalar, algebra: Algebra) -> bool:
    """Whether a percentage equals a plain number: 50% equals 1/2 and 50, but 0.5% does not equal a gold of 0.5."""
    if gold.unit and answer.unit:
        return False
    percent, plain = (gold.text, answer.text) if gold.unit else (answer.text, gold.text)
    plain_gold = None if gold.unit else as_number(gold.text)
    ignore_sign = plain_gold is None or abs(plain_gold.value) >= 1
    return _equal(rf"\frac{{{percent}}}{{100}}", plain, algebra) or (ignore_sign and _equal(percent, plain, algebra))


def _equal(gold: str, answer: str, algebra: Algebra) -> bool:
    if gold == answer:
        return True
    gold_number, number = as_number(gold), as_number(answer)
    if gold_number is None or number is None:
        return algebra(Relation.equality, gold, answer)
    return numbers_equal(gold_number, number)


def _difference(equation: Equation) -> str:
    return f"{equation.left}-({equation.right})"


def _word_key(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
