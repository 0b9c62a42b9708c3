import pytest

from grpo_cli.grading.expression import expression_gold_fault, judge_expression


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("13 5 6 2 = 0", " 13 -5 -6 -2 "),
        ("13 5 6 2 = 0", "13-(5+6+2)"),
        ("95 11 56 = 28", "95 - 11 - 56"),
        ("3 3 8 8 = 24", "8/(3-8/3)"),  # exact arithmetic: floats give another value
        ("2 3 = 1.5", "3 / 2"),
        ("2 3 = -1", "2 \u2212 3"),
        ("2 3 = 1", "-2 + 3"),
    ],
)
def test_an_expression_of_the_given_numbers_with_the_right_value_is_correct(gold, answer):
    assert judge_expression(gold, answer).verdict == "correct"


@pytest.mark.parametrize(
    "answer",
    [
        "0",
        "13 - 13",
        "13 - 5 - 6",
        "13 -5 -6 -2 + 0",
        "13 +5 -6 -2",
        "135 - 62",
        "13 / (5 - 5) - 6 - 2",
        "13 - 5 - 6 - 2 - 2",
        "13 - 5 - 6 - 2 + 5 - 5",
    ],
)
def test_an_expression_of_other_numbers_or_with_another_value_is_wrong(answer):
    assert judge_expression("13 5 6 2 = 0", answer).verdict == "wrong"


@pytest.mark.parametrize(
    "answer",
    [
        "", "13 5 6 2", "13 - 5 = 8", "13 -5 -6 -2 = 0", "1_3 -5 -6 -2", "13 ** 5", "13 // 5", "13 -5 -6 -2.0",
        "abs(13)", "__import__('os')", "lambda: 0", "(13 -5 -6 -2", "0x13 - 5", "\uff11\uff13 -5 -6 -2", "13\x00",
        "(" * 5000 + "1" + ")" * 5000, "-" * 100_000 + "1", "13 -5 -6 -2" + " " * 200 + "+ 0",
        "-" * 190 + "1" + "!", "013 -5 -6 -2", "13, 5",
    ],
)  # fmt: skip
def test_text_that_is_not_an_expression_is_unparsable(answer):
    assert judge_expression("13 5 6 2 = 0", answer).verdict == "unparsable"


@pytest.mark.parametrize("gold", ["", "13 5", "= 3", "a b = 1", "1 2 = ", "1 2 = x"])
def test_a_gold_without_numbers_or_value_is_reported(gold):
    assert "of the form" in expression_gold_fault(gold)


def test_a_valid_gold_has_no_fault():
    assert expression_gold_fault("13 5 6 2 = 0") is None
