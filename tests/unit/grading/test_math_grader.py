import pytest

from grpo_cli.grading.math_grader import Undecided, judge, math_gold_fault


def test_numbers_lists_intervals_and_words_are_decided_without_sympy():
    for gold, answer, verdict in (
        ("42", "042.0", "correct"),
        (r"\frac{1}{2}", "0.5", "correct"),
        ("2,3", "3, 2", "correct"),
        ("[0,1]", r"0 \le x \le 1", "correct"),
        (r"\text{Evelyn}", "evelyn", "correct"),
        ("42", "43", "wrong"),
        ("42", "42 or 43", "wrong"),
        (r"\sqrt{2}", "1, 2", "wrong"),
        ("42", "", "unparsable"),
        ("42", "(42", "unparsable"),
    ):
        assert judge(gold, answer).verdict == verdict, (gold, answer)


def test_an_answer_that_needs_algebra_is_left_undecided():
    with pytest.raises(Undecided):
        judge("x+y", "y+x")


def test_a_verdict_comes_with_its_reason():
    assert judge("42", "").reason == "the answer is empty"
    assert "closed" in judge("42", r"\boxed{42").reason


def test_a_long_answer_is_right_only_if_it_is_written_like_the_gold():
    digits = "7" * 10_000
    assert judge(digits, digits).verdict == "correct"
    assert judge("42", "1+" * 600 + "1").verdict == "unparsable"


@pytest.mark.parametrize(
    "gold", ["", "  ", r"\frac{2 k!}{(k-1)!", "[2,5", "(" * 40 + "1" + ")" * 40, "4\x002", "1+" * 600 + "1"]
)
def test_a_gold_that_no_answer_could_equal_is_reported(gold):
    assert math_gold_fault(gold)


@pytest.mark.parametrize(
    "gold", ["42", r"\text{Evelyn}", "204_5", r"(-\infty,2]", r"x^2+y^2=1", r"\begin{pmatrix}1\\2\end{pmatrix}"]
)
def test_a_valid_gold_has_no_fault(gold):
    assert math_gold_fault(gold) is None
