"""The statistics of claims, by sums worked by hand."""

import math
from pathlib import Path

import pytest

from grpo_cli.errors import DataError
from grpo_cli.science.statistics import (
    RunResult,
    least_gap,
    least_trend,
    median_interval,
    mixed_groups_margin,
    paired_gap,
    sign_test,
    summarize,
)


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
