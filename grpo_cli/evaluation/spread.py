"""Standard errors, confidence intervals and p-values of a mean over problems.

Problems are resampled, not samples: the samples of one problem are alike, so they count together as one score. If all
scores are equal, resampling would find no spread at all. Then the share of problems with another score is bounded from
above like a count of 0 among n in Wilson's interval, by z^2 / (n + z^2), and such a problem may have any score: 30
right of 30 are 100 %, with a lower bound of 88.6 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np

# P problems, R resamples of them

_CHUNK = 1 << 20  # draws in memory at once


def standard_error(scores_P: Sequence[float]) -> float:
    """The standard error of the mean score (sample standard deviation, ddof 1); if all scores are equal, half of the
    Wilson interval divided by z.

    One problem gives nan, since it does not show how problems differ.
    """
    if len(scores_P) == 1:
        return nan
    if _are_equal(scores_P):
        low, high = _interval_of_equal(scores_P, 0.0, 1.0, level=0.95)
        return (high - low) / 2 / _z(0.95)
    return float(np.std(scores_P, ddof=1)) / sqrt(len(scores_P))


def bootstrap_interval(
    scores_P: Sequence[float], *, seed: int = 0, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """The interval with the share `level` of the resampled means. Scores are from 0 to 1; one problem gives nan.

    >>> low, high = bootstrap_interval([1.0] * 30)
    >>> round(low, 3), high
    (0.886, 1.0)
    """
    if len(scores_P) == 1:
        return nan, nan
    if _are_equal(scores_P):
        return _interval_of_equal(scores_P, 0.0, 1.0, level)
    return _middle(_resampled_means(np.asarray(scores_P, float), seed, num_resamples), level)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The mean of b - a with its 95 % interval, and the probability of a mean this large if there is no difference."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    a_P: Sequence[float], b_P: Sequence[float], *, seed: int = 0, num_resamples: int = 10_000
) -> PairedDifference:
    """The difference b - a of two scores per problem, from 0 to 1, by resampling the problems.

    The p-value is two-sided: the share of resamples of the centred differences whose mean is as far from 0 as the
    observed mean. The observed mean counts as one of them, so the p-value is never 0. If all differences are equal, it
    is that of the sign test. One problem gives nan for all fields but the mean.
    """
    differences_P = np.asarray(b_P, float) - np.asarray(a_P, float)
    mean = float(differences_P.mean())
    if len(differences_P) == 1:
        return PairedDifference(mean, nan, nan, nan)
    if _are_equal(differences_P):
        low, high = _interval_of_equal(differences_P, -1.0, 1.0, level=0.95)
        by_sign = 0.5 ** (len(differences_P) - 1) if abs(mean) > 1e-12 else 1.0  # all on one side, either side
        return PairedDifference(mean, low, high, p_value=max(by_sign, 1 / (1 + num_resamples)))
    offsets_R = _resampled_means(differences_P - mean, seed, num_resamples)
    low, high = _middle(mean + offsets_R, level=0.95)
    # Scores are fractions, so allow for rounding.
    as_far = int(np.count_nonzero(np.abs(offsets_R) >= abs(mean) - 1e-12))
    return PairedDifference(mean, low, high, p_value=(1 + as_far) / (1 + num_resamples))


def _resampled_means(scores_P: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    num_problems = len(scores_P)
    rows = max(1, _CHUNK // num_problems)
    sizes = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    return np.concatenate([scores_P[draw.integers(num_problems, size=(r, num_problems))].mean(axis=1) for r in sizes])


def _are_equal(values_P: Sequence[float]) -> bool:
    return max(values_P) - min(values_P) < 1e-12  # scores are fractions, so allow for rounding


def _interval_of_equal(values_P: Sequence[float], least: float, most: float, level: float) -> tuple[float, float]:
    """The interval of the mean of equal values between `least` and `most`, as described at the top."""
    value, num_problems = float(values_P[0]), len(values_P)
    others = _z(level) ** 2 / (num_problems + _z(level) ** 2)
    return value - others * (value - least), value + others * (most - value)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
