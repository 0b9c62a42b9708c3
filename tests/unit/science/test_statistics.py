"""The statistics of claims, by sums worked by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from grpo_cli.errors import DataError
from grpo_cli.runs.rollouts import KeptGroup, KeptResponse, Split, TokenValues, read_step, rollout_file, write_groups
from grpo_cli.science.statistics import (
    RunResult,
    least_gap,
    least_trend,
    margin,
    median_interval,
    mixed_groups_margin,
    movement_ratio,
    paired_gap,
    samples_doublings,
    sign_test,
    summarize,
)
from grpo_cli.types import Verdict


def run(group_size: int = 4, **columns: list) -> RunResult:
    """A run whose row n has the n-th value of each column; None: the row lacks it."""
    length = len(next(iter(columns.values())))
    rows = [
        {"step": step} | {name: values[step] for name, values in columns.items() if values[step] is not None}
        for step in range(length)
    ]
    return RunResult(Path("run"), rows, {"rollout": {"group_size": group_size}})


@pytest.mark.parametrize(("over", "gap"), [("first", 0.1), ("last", -0.2), ("mean", 0.0)])
def test_the_paired_gap_is_the_first_arm_minus_the_second(over, gap):
    # first: 0.4 - 0.3, last: 0.4 - 0.6, means: 0.4 - (0.3 + 0.3 + 0.6) / 3
    runs = {"a": run(x=[0.4, None, 0.4, 0.4, math.nan]), "b": run(x=[0.3, None, 0.3, 0.6, None])}
    assert paired_gap(runs, metric="x", first="a", second="b", over=over) == pytest.approx(gap)


def test_the_least_gap_is_the_worst_of_the_pairs():
    # a - b = 0.3, c - d = -0.1
    runs = {name: run(x=[0, value]) for name, value in {"a": 0.5, "b": 0.2, "c": 0.5, "d": 0.6}.items()}
    assert least_gap(runs, metric="x", pairs=[["a", "b"], ["c", "d"]]) == pytest.approx(-0.1)
    assert least_gap(runs, metric="x", pairs=[["a", "b"]]) == pytest.approx(0.3)


def test_the_margin_is_what_a_loss_leaves_of_the_tolerance():
    # lost: 0.9 - 0.87 = 0.03 of 0.05 allowed, and 0.9 - 0.8 = 0.1 in the other arm; a gain counts on top
    runs = {name: run(x=[0, value]) for name, value in {"a": 0.87, "b": 0.9, "c": 0.8}.items()}
    assert margin(runs, metric="x", first="a", second="b", tolerance=0.05) == pytest.approx(0.02)
    assert margin(runs, metric="x", first="c", second="b", tolerance=0.05) == pytest.approx(-0.05)
    assert margin(runs, metric="x", first="b", second="a", tolerance=0.05) == pytest.approx(0.08)
    # the means: 0.435 and 0.45
    assert margin(runs, metric="x", first="a", second="b", tolerance=0.05, over="mean") == pytest.approx(0.035)


@pytest.mark.parametrize(("gained", "left"), [(0.3, 0.02), (0.01, 0.01), (-0.1, -0.1)])
def test_with_a_gain_the_smaller_of_the_two_counts(gained, left):
    runs = {"a": run(x=[0.87], y=[0.5 + gained]), "b": run(x=[0.9], y=[0.5])}
    assert margin(runs, metric="x", first="a", second="b", tolerance=0.05, gain="y") == pytest.approx(left)


def test_a_metric_that_only_rises_has_trend_1_whatever_its_scale():
    assert least_trend({"a": run(x=[1, 2, 100])}, arm="a", metrics=["x"]) == pytest.approx(1)


def test_the_least_trend_counts():
    # y falls: -1. z has the ranks 0, 2, 1: 1 - 6 (0 + 1 + 1) / (3 (9 - 1)) = 0.5
    runs = {"a": run(x=[1, 2, 3], y=[3, 2, 1], z=[1, 3, 2], flat=[5, 5, 5])}
    assert least_trend(runs, arm="a", metrics=["x", "y"]) == pytest.approx(-1)
    assert least_trend(runs, arm="a", metrics=["x", "z"]) == pytest.approx(0.5)
    assert least_trend(runs, arm="a", metrics=["x", "flat"]) == 0


def test_equal_values_share_a_rank():
    # The ranks 0.5, 0.5, 2, 3 are -1, -1, 0.5, 1.5 from their mean, the steps -1.5, -0.5, 0.5, 1.5 from theirs:
    # 4.5 / sqrt(4.5 * 5)
    assert least_trend({"a": run(x=[4, 4, 9, 10])}, arm="a", metrics=["x"]) == pytest.approx(math.sqrt(0.9))


def test_the_margin_is_what_the_worst_arm_leaves_of_the_tolerance():
    # G=2, p=0.5: 1 - 0.25 - 0.25 = 0.5, measured 1 - 0.2 - 0.2 = 0.6: error 0.1.
    # G=3, p=0.5: 0.75, measured 1 - 0.1 - 0.2 = 0.7 and 1 - 0.1 - 0.1 = 0.8, on average 0.75: no error.
    rate = {"verify/correct": [0.5, 0.5]}
    two = run(2, **rate, **{"group/all_right": [0.2, 0.2], "group/all_wrong": [0.2, 0.2]})
    three = run(3, **rate, **{"group/all_right": [0.1, 0.1], "group/all_wrong": [0.2, 0.1]})
    assert mixed_groups_margin({"three": three}, tolerance=0.15) == pytest.approx(0.15)
    assert mixed_groups_margin({"two": two, "three": three}, tolerance=0.15) == pytest.approx(0.05)


def test_samples_until_an_accuracy_are_interpolated_and_compared_in_doublings():
    # 0.5 is half way between 0.4 and 0.6, at 30 of 20 to 40 samples; the other arm ends at 120 without it: 4 times 30.
    fast = run(x=[0.1, 0.4, 0.6], **{"total/samples": [None, 20, 40]})
    slow = run(x=[0.1, 0.2, 0.3], **{"total/samples": [None, 60, 120]})
    arms = {"fast": fast, "slow": slow}
    assert samples_doublings(arms, metric="x", reach=0.5, first="fast", second="slow") == pytest.approx(2)
    assert samples_doublings(arms, metric="x", reach=0.5, first="slow", second="fast") == pytest.approx(-2)
    # 0.2: a third of the way from 0.1 to 0.4, at 20 / 3 samples; in the other arm at 60
    assert samples_doublings(arms, metric="x", reach=0.2, first="fast", second="slow") == pytest.approx(math.log2(9))


def moved_group(problem: str, num_right: int, rise: float, *, divided: bool) -> KeptGroup:
    """A group of four whose right responses' log-probability rises by `rise`; the advantages are divided by the std."""
    rate = num_right / 4
    responses = []
    for place in range(4):
        right = place < num_right
        before = -1.0 - place
        values = TokenValues(["a", "b"], [0, 0], [before, -1], [0, 0], [before + right * rise, -1])
        advantage = (right - rate) / (math.sqrt(rate * (1 - rate)) if divided else 1)
        verdict = Verdict.correct if right else Verdict.wrong
        responses.append(KeptResponse("a b", 2, False, float(right), {}, None, verdict, advantage, values))
    return KeptGroup(1, Split.train, problem, problem, problem, "", "math", tuple(responses))


def moved_run(folder: Path, middle: float, hard: float, *, divided: bool) -> RunResult:
    """A run with a problem of pass rate 1/2 and one of 1/4, and the rises of their right responses."""
    file = rollout_file(folder, Split.train, 1)
    file.parent.mkdir(parents=True)
    groups = [moved_group("middle", 2, middle, divided=divided), moved_group("hard", 1, hard, divided=divided)]
    write_groups(file, groups)
    return RunResult(folder, [], {})


def test_movement_on_hard_problems_is_compared_with_what_the_advantages_say(tmp_path):
    # p (1 - p) is 1/4 and 3/16: without the division, 3/7 is on the hard problem. With it, 1/2 and sqrt(3)/4.
    without = moved_run(tmp_path / "without", 1, 1, divided=False)  # all rise by 1: 3/7, as the advantages say
    said = math.sqrt(3) / (2 + math.sqrt(3)) - 3 / 7

    def ratio(name: str, middle: float, hard: float) -> float:
        runs = {"a": moved_run(tmp_path / name, middle, hard, divided=True), "b": without}
        return movement_ratio(runs, first="a", second="b", extreme=0.25)

    assert ratio("as said", 2, 4 / math.sqrt(3)) == pytest.approx(1)  # by 1 / sqrt(p (1 - p))
    assert ratio("no more", 3, 3) == pytest.approx(0)
    assert ratio("too much", 1, 2) == pytest.approx((3 / 5 - 3 / 7) / said)  # 1/4 and 2 * 3/16


def test_movement_needs_token_values(tmp_path):
    runs = {name: moved_run(tmp_path / name, 1, 1, divided=name == "a") for name in "ab"}
    file = rollout_file(tmp_path / "a", Split.train, 1)
    (group, *_) = read_step(tmp_path / "a", Split.train, 1)
    write_groups(file, [replace(group, responses=[replace(group.responses[0], values=None)])])
    with pytest.raises(DataError, match=r"Set logger\.token_values=true"):
        movement_ratio(runs, first="a", second="b", extreme=0.25)


def test_movement_without_a_difference_to_compare_is_reported(tmp_path):
    one = moved_run(tmp_path / "a", 1, 1, divided=False)
    with pytest.raises(DataError, match="a and b: the advantages say no difference"):
        movement_ratio({"a": one, "b": one}, first="a", second="b", extreme=0.25)
    write_groups(rollout_file(tmp_path / "a", Split.train, 1), [moved_group("easy", 4, 1, divided=False)])
    with pytest.raises(DataError, match="keeps no group with different rewards"):
        movement_ratio({"a": one, "b": one}, first="a", second="b", extreme=0.25)


def test_a_metric_that_a_run_lacks_is_reported():
    with pytest.raises(DataError, match="run has no values of y"):
        paired_gap({"a": run(x=[1]), "b": run(x=[1])}, metric="y", first="a", second="b")


@pytest.mark.parametrize(("agreeing", "seeds", "p"), [(3, 3, 1 / 8), (2, 3, 4 / 8), (0, 3, 1), (7, 8, 9 / 256)])
def test_the_sign_test_counts_the_tosses_with_so_many_heads(agreeing, seeds, p):
    assert sign_test(agreeing, seeds) == p


def test_the_summary_shows_median_range_and_both_directions_and_leaves_out_seeds_at_0():
    summary = summarize([0.3, -0.1, 0.2, 0.0])  # two above, one below
    assert (summary.num_seeds, summary.median, summary.low, summary.high) == (4, 0.1, -0.1, 0.3)
    assert (summary.p_above, summary.p_below) == (4 / 8, 7 / 8)


def test_the_interval_of_the_median_comes_from_resampled_seeds():
    # Of two seeds, a quarter of the resamples has the lower one twice, a quarter the higher one: the ends are both.
    assert median_interval([0.0, 1.0]) == (0.0, 1.0)
    # Of nine seeds, the median is the smallest one only if five draws are: with probability 0.0009.
    low, high = median_interval([0.0, *[0.5] * 7, 1.0])
    assert (low, high) == (0.5, 0.5)
    assert summarize([0.4]).interval is None
