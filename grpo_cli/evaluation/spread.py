"""How far a mean over problems can be trusted.

Problems are what is resampled: a problem's samples are alike, and count together as one score. Where all scores agree,
resampling would find no spread at all, as if they were all that there can be. Then the share of problems that score
otherwise is bounded from above as Wilson's interval bounds a count of 0 among n, by z^2 / (n + z^2), and such a problem
may score anything: 30 right of 30 are 100 %, and 88.6 % at least.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np

# P problems, R resamples of them

_CHUNK = 1 << 20  # draws that are in memory at once


def standard_error(scores_P: Sequence[float]) -> float:
    """Of the mean of the problems' scores, with the sample's standard deviation (ddof 1); where they agree, half of the
    interval above over z.

    One problem gives nan: it does not tell how problems differ, and 0 would say that they do not.
    """
    if len(scores_P) == 1:
        return nan
    if _agree(scores_P):
        low, high = _agreeing_interval(scores_P, 0.0, 1.0, level=0.95)
        return (high - low) / 2 / _z(0.95)
    return float(np.std(scores_P, ddof=1)) / sqrt(len(scores_P))


def bootstrap_interval(
    scores_P: Sequence[float], *, seed: int = 0, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Between which means `level` of the resamples of the problems lie, whose scores are from 0 to 1; nan for one
    problem, as above.

    >>> low, high = bootstrap_interval([1.0] * 30)
    >>> round(low, 3), high
    (0.886, 1.0)
    """
    if len(scores_P) == 1:
        return nan, nan
    if _agree(scores_P):
        return _agreeing_interval(scores_P, 0.0, 1.0, level)
    return _middle(_resampled_means(np.asarray(scores_P, float), seed, num_resamples), level)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The mean of b - a with its 95 % interval, and how likely so large a one is where there is none."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    a_P: Sequence[float], b_P: Sequence[float], *, seed: int = 0, num_resamples: int = 10_000
) -> PairedDifference:
    """Two scores of each problem compared, from 0 to 1: b - a, by resampling the problems' differences.

    The p-value is two-sided. It is the share of resamples of the centred differences whose mean is as far from 0 as
    the one found, which itself counts as one: it is never 0. Where all differences agree, it is that of the sign test.
    One problem gives nan for all but the mean.
    """
    differences_P = np.asarray(b_P, float) - np.asarray(a_P, float)
    mean = float(differences_P.mean())
    if len(differences_P) == 1:
        return PairedDifference(mean, nan, nan, nan)
    if _agree(differences_P):
        low, high = _agreeing_interval(differences_P, -1.0, 1.0, level=0.95)
        by_sign = 0.5 ** (len(differences_P) - 1) if abs(mean) > 1e-12 else 1.0  # all to one side, of either
        return PairedDifference(mean, low, high, p_value=max(by_sign, 1 / (1 + num_resamples)))
    offsets_R = _resampled_means(differences_P - mean, seed, num_resamples)
    low, high = _middle(mean + offsets_R, level=0.95)
    # Scores are fractions: a mean that is equal but for rounding is as far.
    as_far = int(np.count_nonzero(np.abs(offsets_R) >= abs(mean) - 1e-12))
    return PairedDifference(mean, low, high, p_value=(1 + as_far) / (1 + num_resamples))


def _resampled_means(scores_P: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    num_problems = len(scores_P)
    rows = max(1, _CHUNK // num_problems)
    sizes = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    return np.concatenate([scores_P[draw.integers(num_problems, size=(r, num_problems))].mean(axis=1) for r in sizes])


def _agree(values_P: Sequence[float]) -> bool:
    return max(values_P) - min(values_P) < 1e-12  # fractions: equal but for rounding


def _agreeing_interval(values_P: Sequence[float], least: float, most: float, level: float) -> tuple[float, float]:
    """Of the mean of equal values between `least` and `most`, as above."""
    value, num_problems = float(values_P[0]), len(values_P)
    others = _z(level) ** 2 / (num_problems + _z(level) ** 2)
    return value - others * (value - least), value + others * (most - value)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
