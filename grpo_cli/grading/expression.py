"""Grading of arithmetic expressions: each given number must be used exactly once, and the value must be right.

A gold such as `13 5 6 2 = 0` lists the numbers, then the target value. The Countdown and make_zero tasks use this form.
"""

import ast
from collections import Counter
from fractions import Fraction

from grpo_cli.grading.math_grader import Judgement
from grpo_cli.types import Verdict

MAX_CHARS = 200  # also bounds the depth of the tree and the size of every value
_SPELLINGS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\n": " ", "\t": " "})
_ALLOWED = frozenset("0123456789+-*/() ")


def judge_expression(gold: str, answer: str) -> Judgement:
    """Returns the verdict on an expression of numbers, + - * / and parentheses.

    >>> judge_expression("13 5 6 2 = 0", "13 -5 -6 -2").verdict.value
    'correct'
    >>> judge_expression("13 5 6 2 = 0", "0").reason
    'uses 0 instead of 2 5 6 13'
    """
    numbers, value = _parse_gold(gold)
    answer = answer.strip().translate(_SPELLINGS)
    if not answer or len(answer) > MAX_CHARS or not _ALLOWED.issuperset(answer):
        return Judgement(Verdict.unparsable, f"not an expression with + - * / ( ) of at most {MAX_CHARS} characters")
    used: list[int] = []
    try:
        result = _evaluate(ast.parse(answer, mode="eval").body, used)
    except (SyntaxError, ValueError):
        return Judgement(Verdict.unparsable, "not an arithmetic expression")
    except ZeroDivisionError:
        return Judgement(Verdict.wrong, "divides by zero")
    if Counter(used) != Counter(numbers):
        seen, given = (" ".join(map(str, sorted(each))) for each in (used, numbers))
        return Judgement(Verdict.wrong, f"uses {seen} instead of {given}")
    if result != value:
        return Judgement(Verdict.wrong, f"equals {result} instead of {value}")
    return Judgement(Verdict.correct, f"equals {value} and uses the given numbers")


def expression_gold_fault(gold: str) -> str | None:
    """Returns why `gold` is not a valid gold answer; None if it is valid."""
    try:
        _parse_gold(gold)
    except ValueError:
        return f"{gold!r} is not of the form '13 5 6 2 = 0': numbers, an equals sign, the target value"
    return None


def _parse_gold(gold: str) -> tuple[list[int], Fraction]:
    given, equals, value = gold.partition("=")
    numbers = [int(number) for number in given.split()]
    if not equals or not numbers:
        raise ValueError(f"the gold {gold!r} has no numbers or no value")
    return numbers, Fraction(value)


def _evaluate(node: ast.expr, used: list[int]) -> Fraction:
    """Returns the exact value of a syntax tree and appends its numbers to `used`."""
    match node:
        case ast.Constant(value=int() as number):
            used.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, used)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, used)
        case ast.BinOp(left=left, op=operator, right=right):
            first, second = _evaluate(left, used), _evaluate(right, used)
            match operator:
                case ast.Add():
                    return first + second
                case ast.Sub():
                    return first - second
                case ast.Mult():
                    return first * second
                case ast.Div():
                    return first / second
    raise ValueError("the expression has a part that is neither a number nor one of + - * /")
