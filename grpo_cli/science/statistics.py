"""The statistics of claims: each takes the runs of one seed by arm, and returns one value, above 0 if the claim holds.

After them, what the values of all seeds say together: median, range, bootstrap interval, exact sign test.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo_cli.errors import DataError
from grpo_cli.runs.rollouts import KeptGroup, KeptResponse, Split, read_groups

# S seeds, R resamples of them


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder, the rows of its metrics.jsonl, and the settings that it was started with."""

    folder: Path
    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]  # nested, as in config.yaml


Runs = Mapping[str, RunResult]  # the runs of one seed, by arm
MOMENTS = ("last", "first", "mean")


def paired_gap(runs: Runs, *, metric: str, first: str, second: str, over: str = "last") -> float:
    """The value of `metric` in the arm `first` minus that in `second`.

    `over` says which value of a run counts: the last one, the first one, or the mean of all.
    """
    pick: dict[str, Callable[[Sequence[float]], float]] = {
        "last": lambda values: values[-1],
        "first": lambda values: values[0],
        "mean": statistics.fmean,
    }
    a, b = (pick[over](curve(runs[arm], metric)[1]) for arm in (first, second))
    return a - b


def least_gap(runs: Runs, *, metric: str, pairs: list[list[str]], over: str = "last") -> float:
    """The smallest `paired_gap` of several pairs of arms: above 0 if the first arm of every pair has more.

    In a 2 x 2 experiment, the two pairs that differ in one factor only show its effect at each level of the other.
    """
    return min(paired_gap(runs, metric=metric, first=first, second=second, over=over) for first, second in pairs)


def margin(
    runs: Runs, *, metric: str, first: str, second: str, tolerance: float, gain: str | None = None, over: str = "last"
) -> float:
    """`tolerance` minus how much lower `metric` is in the arm `first` than in `second`: what a loss leaves of it.

    With `gain`, another metric on the same scale, the smaller of that and how much higher `gain` is in `first`: above 0
    if `first` has more of `gain`, and loses less of `metric` than is allowed.
    """
    left = tolerance + paired_gap(runs, metric=metric, first=first, second=second, over=over)
    if gain is None:
        return left
    return min(left, paired_gap(runs, metric=gain, first=first, second=second, over=over))


def least_trend(runs: Runs, *, arm: str, metrics: list[str]) -> float:
    """The smallest rank correlation (Spearman's) of a metric with the step: 1 if every metric only rises.

    A metric that never changes counts as 0.
    """
    return min(_rank_correlation(curve(runs[arm], metric)[1]) for metric in metrics)


def mixed_groups_margin(runs: Runs, *, tolerance: float) -> float:
    """`tolerance` minus the largest error, over the arms, of 1 - (1 - p)^G - p^G as the share of mixed groups.

    A group is mixed if it has right and wrong answers. The measured share and the formula are averaged over the steps,
    with the training accuracy of the step as p and rollout.group_size as G.
    """
    errors = []
    for run in runs.values():
        size = int(run.settings["rollout"]["group_size"])
        right, wrong, rates = (
            np.array(curve(run, metric)[1]) for metric in ("group/all_right", "group/all_wrong", "verify/correct")
        )
        measured, expected = 1 - right - wrong, 1 - (1 - rates) ** size - rates**size
        errors.append(abs(float(measured.mean() - expected.mean())))
    return tolerance - max(errors)


def samples_doublings(runs: Runs, *, metric: str, reach: float, first: str, second: str) -> float:
    """How often the samples that the arm `first` needs until `metric` is at `reach` must be doubled for `second`.

    Samples between two evaluations are interpolated. An arm that does not get there counts with all its samples.
    """
    a, b = (_samples_until(runs[arm], metric, reach) for arm in (first, second))
    return math.log2(b / a)


def movement_ratio(runs: Runs, *, first: str, second: str, extreme: float) -> float:
    """How much more of an update's movement is on easy and hard problems in `first` than in `second`: 1 is as much
    more as the advantages say, 0 is no more.

    Easy and hard are groups with a pass rate of at least 1 - `extreme` or at most `extreme`. A group's movement is the
    mean of (reward - mean reward) * (change of the response's log-probability in the update), an estimate of the change
    of its pass rate. The advantages say: the mean of (reward - mean reward) * advantage, which is sqrt(p (1 - p)) with
    the standard deviation and p (1 - p) without. Needs the token values of whole groups (logger.token_values).
    """
    measured, expected = (
        [_extreme_share(runs[arm], extreme, push) for arm in (first, second)] for push in (_logprob_change, _advantage)
    )
    if expected[0] == expected[1]:
        raise DataError(f"{first} and {second}: the advantages say no difference. Set another `extreme`.")
    return (measured[0] - measured[1]) / (expected[0] - expected[1])


STATISTICS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        *(paired_gap, least_gap, margin, least_trend),
        *(mixed_groups_margin, samples_doublings, movement_ratio),
    )
}


def curve(run: RunResult, metric: str) -> tuple[list[int], list[float]]:
    """The steps at which a run has a finite value of `metric`, and the values. Raises DataError if there are none."""
    points = [(row["step"], row[metric]) for row in run.rows if math.isfinite(row.get(metric, math.nan))]
    if not points:
        raise DataError(
            f"{run.folder} has no values of {metric}. Name a metric of docs/metrics.md in the claim's options."
        )
    return [step for step, _ in points], [value for _, value in points]


def _samples_until(run: RunResult, metric: str, reach: float) -> float:
    spent = dict(zip(*curve(run, "total/samples"), strict=True)) | {0: 0.0}
    steps, values = curve(run, metric)
    below = (0, 0.0)  # the last step with a value below `reach`, and that value
    for step, value in zip(steps, values, strict=True):
        if value >= reach:
            share = (reach - below[1]) / (value - below[1]) if step > 0 else 1.0
            return max(1.0, spent[below[0]] + share * (spent[step] - spent[below[0]]))
        below = (step, value)
    return spent[steps[-1]]


def _extreme_share(run: RunResult, extreme: float, push: Callable[[KeptResponse], float]) -> float:
    """The share of easy and hard groups in the sum over groups of the mean of (reward - mean reward) * `push`."""
    moved = [(_pass_rate(group), _moved(group, push)) for group in read_groups(run.folder, Split.train)]
    if not any(value for _, value in moved):
        raise DataError(f"{run.folder} keeps no group with different rewards. Set logger.groups_per_step.")
    of_extreme = sum(value for rate, value in moved if not extreme < rate < 1 - extreme)
    return of_extreme / sum(value for _, value in moved)


def _pass_rate(group: KeptGroup) -> float:
    return statistics.fmean(response.correct is True for response in group.responses)


def _moved(group: KeptGroup, push: Callable[[KeptResponse], float]) -> float:
    mean = statistics.fmean(response.reward for response in group.responses)
    return statistics.fmean((response.reward - mean) * push(response) for response in group.responses)


def _logprob_change(response: KeptResponse) -> float:
    if response.values is None or response.values.updated_logprobs is None:
        raise DataError("A kept response has no token values. Set logger.token_values=true in the claim's runs.")
    return math.fsum(response.values.updated_logprobs) - math.fsum(response.values.trainer_logprobs)


def _advantage(response: KeptResponse) -> float:
    return response.advantage or 0.0


def _rank_correlation(values: Sequence[float]) -> float:
    if len(set(values)) < 2:
        return 0.0
    ordered = sorted(values)  # equal values share the mean of their ranks
    ranks = [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
    return statistics.correlation(range(len(values)), ranks)  # the steps of a run only rise


@dataclass(frozen=True)
class Summary:
    """The values of several seeds together. The interval is of the median, at 95 %; None with a single seed."""

    num_seeds: int
    median: float
    low: float
    high: float
    interval: tuple[float, float] | None
    p_above: float
    """Probability that so many or more values are above 0 if above and below are equally likely."""
    p_below: float
    """The same for values below 0."""


def summarize(values_S: Sequence[float]) -> Summary:
    """What the values say together; there must be at least one."""
    above, below = (sum(sign * value > 0 for value in values_S) for sign in (1, -1))
    return Summary(
        num_seeds=len(values_S),
        median=statistics.median(values_S),
        low=min(values_S),
        high=max(values_S),
        interval=median_interval(values_S) if len(values_S) > 1 else None,
        p_above=sign_test(above, above + below),
        p_below=sign_test(below, above + below),
    )


def sign_test(num_agreeing: int, num_seeds: int) -> float:
    """The exact one-sided p-value: so many or more heads in `num_seeds` tosses of a fair coin. Seeds at 0 are left out.

    >>> sign_test(8, 8), sign_test(7, 8), sign_test(0, 0)
    (0.00390625, 0.03515625, 1.0)
    """
    return sum(math.comb(num_seeds, heads) for heads in range(num_agreeing, num_seeds + 1)) / 2**num_seeds


def median_interval(values_S: Sequence[float], *, num_resamples: int = 10_000) -> tuple[float, float]:
    """The middle 95 % of the medians of resampled seeds (percentile bootstrap); the same in every call."""
    values = np.asarray(values_S, float)
    places = np.random.default_rng(0).integers(len(values), size=(num_resamples, len(values)))
    low, high = np.quantile(np.median(values[places], axis=1), [0.025, 0.975])
    return float(low), float(high)
