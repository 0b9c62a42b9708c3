from fractions import Fraction

import pytest

from grpo_cli.grading.rational import as_number, numbers_equal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("042", 42),
        ("+7", 7),
        ("-.5", Fraction(-1, 2)),
        ("3.", 3),
        ("3e2", 300),
        ("1.5e-3", Fraction(3, 2000)),
        ("2*10^{3}", 2000),
        (r"-\frac{1}{2}", Fraction(-1, 2)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        ("3/4", Fraction(3, 4)),
        ("-2 3/4", Fraction(-11, 4)),
        (r"2\frac{3}{4}", Fraction(11, 4)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"1.2\overline{45}", Fraction(137, 110)),
    ],
)
def test_a_number_is_read_exactly(text, value):
    assert as_number(text).value == value


@pytest.mark.parametrize(
    "text", ["", "x", "1 2", "1/0", r"\frac{1}{0}", "1e9999", "4_2", "--1", "1.2.3", "e5", ".", "1" * 5000]
)
def test_text_that_is_not_a_plain_number_gives_none(text):
    assert as_number(text) is None


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("0.5", "1/2", True),
        ("1.0", "1", True),
        ("0.333333", "1/3", True),
        ("0.666666", "2/3", True),  # truncated
        ("0.666667", "2/3", True),  # rounded
        ("0.666668", "2/3", False),
        ("0.33333", "1/3", False),  # fewer than six digits
        ("41.9999999", "42", False),  # 42 is exact as a decimal and must be equal exactly
        ("2.23", "2.232", False),
        ("0.066666793", "0.0666668", True),
        ("1e-8", "2e-8", False),
        ("0.00000001", "0.000000014", False),
        ("-0.333333", "1/3", False),
    ],
)
def test_a_decimal_equals_its_exact_value_and_with_six_digits_the_number_that_it_rounds(left, right, equal):
    assert numbers_equal(as_number(left), as_number(right)) == equal
    assert numbers_equal(as_number(right), as_number(left)) == equal
