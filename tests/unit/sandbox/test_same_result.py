import math
from collections import deque, namedtuple
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest

from grpo_cli.sandbox.same_result import brief, same_output, same_value
from grpo_cli.sandbox.wire import encode


@pytest.mark.parametrize(
    ("returned", "expected", "tolerance", "is_same"),
    [
        (3, 3, 0, True),
        (3.0, 3, 0, True),
        (True, 1, 0, True),  # as in Python
        ("3", 3, 0, False),
        (3, "3", 0, False),
        (None, None, 0, True),
        (None, 0, 0, False),
        (0, None, 0, False),
        ((1, 2), [1, 2], 0, True),
        ([1, [2, (3,)]], [1, [2, [3]]], 0, True),
        ([1, 2], [1, 2, 3], 0, False),
        ([1, 2, 3], [1, 2], 0, False),
        ({1, 2}, [1, 2], 0, False),
        (iter([1, 2]), [1, 2], 0, False),
        (b"a", "a", 0, False),
        ({"a": (1,)}, {"a": [1]}, 0, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0, True),
        ({"a": 1}, {"a": 2}, 0, False),
        ({"a": 1}, {"a": 1, "b": 2}, 0, False),
        ({1: 1}, {"1": 1}, 0, True),  # JSON writes keys as strings
        ({True: 1, None: 2, 0.5: 3}, {"true": 1, "null": 2, "0.5": 3}, 0, True),
        ({2**80: 1}, {str(2**80): 1}, 0, True),
        ({2**16000: 1}, {"1": 1}, 0, False),  # more digits than Python converts to a string
        ({(1,): 1}, {"(1,)": 1}, 0, False),
        ({1: 1, "1": 1}, {"1": 1}, 0, False),
        ({1: 1, "1": 1}, {"1": 1, "2": 1}, 0, False),
        ({}, {}, 0, True),
        ({}, [], 0, False),
        (2**100, 2**100, 0, True),
        (-(2**100), 2**100, 0, False),
        (0.1 + 0.2, 0.3, 0, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        ([0.1 + 0.2], [0.3], 1e-9, True),
        (0.301, 0.3, 1e-9, False),
        (1000.5, 1000.0, 1e-3, True),  # relative
        (10**400, 1.5, 1e-3, False),
        (math.nan, 1.0, 1e-3, False),
        (Fraction(1, 2), 0.5, 0, True),
        (Fraction(6, 2), 3, 0, True),
        (Fraction(1, 3), 1 / 3, 0, False),  # as in Python
        (Fraction(1, 3), 1 / 3, 1e-9, True),
        (Fraction(2**90, 2**91 + 1), 0.5, 0, False),
        (Fraction(10**400), 1.5, 1e-3, False),
        (Fraction(1, 2), math.inf, 1e-3, False),
        (Fraction(1, 2), "1/2", 0, False),
        (Decimal("0.50"), 0.5, 0, True),
        (Decimal("0.1"), 0.1, 0, False),
        (Decimal("0.1"), 0.1, 1e-9, True),
        (Decimal("3"), 3, 0, True),
        (Decimal("sNaN"), 3, 1e-3, False),
        (Decimal("nan"), 3, 1e-3, False),
        ([Decimal(1)], [1], 0, True),
        (namedtuple("Point", "x y")(1, 2), [1, 2], 0, True),
        (deque([1, 2]), [1, 2], 0, False),
        (date(2024, 2, 29), "2024-02-29", 0, False),
    ],
)
def test_a_returned_value_is_compared_as_plain_data(returned, expected, tolerance, is_same):
    assert same_value(encode(returned), expected, tolerance) is is_same


@pytest.mark.parametrize(
    "frame",
    [
        {"object": 0},
        {"int": "x"},
        {"int": 3},
        {"Fraction": 3},
        {"Fraction": [3]},
        {"Fraction": [3, 0]},
        {"Fraction": ["x", 1]},
        {"Fraction": [3, 1, 1]},
        {"Decimal": 3},
        {"Decimal": [0, [3], 0]},
        {"Decimal": "x"},
        {"namedtuple": [3]},
        {"namedtuple": 3},
        {"tuple": 3},
        {"dict": 3},
        {"dict": [3]},
        {"dict": [[3]]},
        {"a": 1, "b": 2},
        {},
    ],
)
@pytest.mark.parametrize("expected", [3, "x", [3], None, {}, {"object": 0}, {"a": 1, "b": 2}])
def test_a_malformed_frame_equals_nothing(frame, expected):
    assert not same_value(frame, expected, 1.0)


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "is_same"),
    [
        ("3\n", "3", 0, True),
        ("3  \n4\n\n", "3\n4\n", 0, True),
        ("3\r\n4\r\n", "3\n4", 0, True),
        (" 3", "3", 0, True),
        ("\n\n3\n", "3", 0, True),
        ("1.50 -0\n1e3", "1.5 0\n1000", 0, True),
        ("0.1000000000000000001", "0.1", 0, False),
        ("50000000000000000", "50000000000000001", 0, False),
        ("1  2", "1 2", 0, True),
        ("a  b", "a b", 0, False),
        ("x 1.0", "x 1", 0, False),  # numbers are compared as numbers only if the line has nothing else
        ("1 2", "1 2 3", 0, False),
        ("1 2 3", "1 2", 0, False),
        ("nan", "NaN", 0, False),
        ("sNaN", "1", 0, False),
        ("sNaN", "1", 1e-2, False),
        ("3 4", "3\n4", 1e-2, False),
        ("3 4", "3\n4", 0, False),
        ("3\n\n4", "3\n4", 0, False),
        ("yes 0.333", "yes 0.3333", 0, False),
        ("yes 0.333", "yes 0.3333", 1e-2, True),
        ("no 0.3333", "yes 0.3333", 1e-2, False),
        ("0.3333", "0.3333 1", 1e-2, False),
        ("", "3", 0, False),
        ("", "", 0, True),
    ],
)
def test_an_output_is_compared_line_by_line(printed, expected, tolerance, is_same):
    assert same_output(printed, expected, tolerance) is is_same


def test_the_repr_of_a_large_value_is_short():
    assert brief("x" * 10**6).startswith("'xxx")
    assert len(brief([["x" * 10**6] * 10**6] * 10**6)) <= 80
