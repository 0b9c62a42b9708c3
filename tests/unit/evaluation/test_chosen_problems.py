import io

import pytest
from rich.console import Console

from grpo_cli.choices import Grader, OnBadGold
from grpo_cli.errors import DataError
from grpo_cli.evaluation.chosen_problems import draw_problems, fault_list, gradable_problems
from grpo_cli.types import Problem

GOOD, BAD = Problem("good", "1 + 1?", "2"), Problem("bad", "1 + 1?", "two [of them]", Grader.expression)


def test_problems_with_an_ungradable_answer_are_dropped_and_reported():
    console = Console(file=io.StringIO())
    assert gradable_problems([GOOD, BAD], OnBadGold.drop, console) == [GOOD]
    report = console.file.getvalue()
    assert "1 of 2 problems have an answer that cannot be graded:\n  bad: the answer 'two [of them]'" in report
    assert "They are left out (data.on_bad_gold=drop)." in report


def test_gradable_problems_are_kept_without_a_report():
    console = Console(file=io.StringIO())
    assert gradable_problems([GOOD], OnBadGold.error, console) == [GOOD]
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(
    ("problems", "on_bad_gold", "advice"),
    [
        ([GOOD, BAD], OnBadGold.error, "Fix them, or drop them with data.on_bad_gold=drop"),
        ([BAD], OnBadGold.drop, "No problem remains. Set data.grader"),
    ],
)
def test_an_ungradable_answer_is_an_error_if_asked_for_or_if_no_problem_remains(problems, on_bad_gold, advice):
    with pytest.raises(DataError, match=advice):
        gradable_problems(problems, on_bad_gold, Console(file=io.StringIO()))


def test_a_long_list_of_faults_is_cut():
    lines = fault_list({str(n): "fault" for n in range(6)}).splitlines()
    assert lines == [*(f"  {n}: fault" for n in range(5)), "  ..."]


def test_problems_are_drawn_by_the_seed_and_never_more_than_there_are():
    problems = [Problem(str(n), "?", "2") for n in range(20)]
    drawn = draw_problems(problems, 5, seed=1)
    assert len({problem.id for problem in drawn}) == 5
    assert drawn == draw_problems(problems, 5, seed=1) != draw_problems(problems, 5, seed=2)
    assert sorted(draw_problems(problems, 99, seed=1), key=lambda problem: int(problem.id)) == problems
