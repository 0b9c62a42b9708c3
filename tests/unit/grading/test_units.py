import pytest

from grpo_cli.grading.latex import Unreadable
from grpo_cli.grading.units import Scalar, split_unit


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", "5", ""),
        (r"5\text{cm}", "5", "cm"),
        (r"5\text{cm}^{2}", "5", "cm^2"),
        ("5 square inches", "5", "in^2"),
        ("60 miles per hour", "60", "mi/h"),
        ("7 apples", "7", "#apple"),
        ("7 ripe apples", "7", "#apple ripe"),
        ("7 apples pie", "7", "#apple pie"),  # listed words in any order: they cannot change the value
        ("5 units", "5", ""),
        ("5 kWh", "5", "h*kW"),
        (r"5\text{kJ/mol}", "5", "kJ/mol"),
        (r"5\text{m}\text{s}^{-2}", "5", "m/s^2"),
        (r"5\frac{\text{m}}{\text{s}}", "5", "m/s"),
        (r"5\mu\text{m}", "5", "um"),
        ("5 miles away", "5", "mi"),
        ("5 cups of rice", "5", "cup"),
        ("3 million", "3000000", ""),
        ("1.5 thousand dollars", "1500", "dollar"),
        (r"\$5 per hour", "5", "dollar/h"),
        ("5cm", "5", "cm"),
        ("28%", "28", "%"),
        ("28 percent", "28", "%"),
        (r"90^{\circ}", "90", "degree"),
        (r"20^{\circ}\text{C}", "20", "degC"),
        (r"\$5", "5", "dollar"),
        (r"-\$5", "-5", "dollar"),
        ("5 dollars", "5", "dollar"),
        ("3 n", "3 n", ""),  # one letter is a variable
        ("2ab", "2ab", ""),
        ("2mg", "2mg", ""),  # m times g
        ("2cab", "2cab", ""),
        (r"2\text{x}", r"2\text{x}", ""),
        ("2 sin x", "2 sin x", ""),
        (r"\tan45^{\circ}", r"\tan45^{\circ}", ""),  # part of the expression, not its unit
    ],
)
def test_units_are_distinguished_from_variables(text, value, unit):
    assert split_unit(text) == Scalar(value, unit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("42 halves or so", "halves or so"),
        (r"42\text{ halves}", "halves"),
        ("42 squared", "squared"),
        (r"42\text{!}", "!"),
    ],
)
def test_words_that_are_not_a_unit_are_kept_as_words(text, words):
    assert split_unit(text) == Scalar("42", "", words)


@pytest.mark.parametrize("text", [r"42\text{ or 43}", r"42\text{cm}\text{ 43}", "42 apples 43"])
def test_a_second_number_in_a_unit_is_rejected(text):
    with pytest.raises(Unreadable):
        split_unit(text)
