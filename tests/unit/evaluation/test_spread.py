import tracemalloc
from dataclasses import astuple
from math import isnan, sqrt

import numpy as np
import pytest

from grpo_cli.evaluation.spread import bootstrap_interval, paired_bootstrap, standard_error


def test_standard_error_by_hand():
    # mean 1/2, variance 4 * 1/4 / 3; the variance of the mean is a fourth of it
    assert standard_error([1, 0, 1, 0]) == pytest.approx(sqrt(1 / 12))


def test_one_problem_gives_nan():
    assert isnan(standard_error([0.5]))
    assert all(map(isnan, bootstrap_interval([0.5])))
    mean, *others = astuple(paired_bootstrap([0.25], [0.75]))
    assert mean == 0.5
    assert all(map(isnan, others))


def test_thirty_right_of_thirty_still_have_an_interval():
    # Wilson's interval for 30 of 30: 30 / (30 + 1.96^2) to 1
    assert bootstrap_interval([1.0] * 30) == (pytest.approx(30 / (30 + 1.959964**2)), 1)
    assert bootstrap_interval([0.0] * 30) == (0, pytest.approx(1.959964**2 / (30 + 1.959964**2)))
    assert standard_error([1.0] * 30) == pytest.approx(1.959964 / (30 + 1.959964**2) / 2)


def test_equal_scores_between_0_and_1_have_an_interval_on_both_sides():
    # A share of 3.84 / 33.84 of the problems may score 0 or 1 instead of 1/4.
    others = 1.959964**2 / (30 + 1.959964**2)
    low, high = bootstrap_interval([0.25] * 30)
    assert (low, high) == (pytest.approx(0.25 - 0.25 * others), pytest.approx(0.25 + 0.75 * others))
    assert standard_error([0.25] * 30) == pytest.approx(others / 2 / 1.959964)


def test_scores_that_differ_by_rounding_count_as_equal():
    scores_P = [0.1 + 0.2, 0.3] * 15
    assert bootstrap_interval(scores_P)[1] - bootstrap_interval(scores_P)[0] > 0.1


@pytest.mark.parametrize("num_problems", [5, 30, 300])
def test_the_interval_of_equal_scores_is_wide_enough(num_problems):
    # A model whose solve rate is the lower bound gets all problems right with a probability of at least about 1/40.
    low, _ = bootstrap_interval([1.0] * num_problems)
    assert low**num_problems >= 0.02


def test_the_interval_holds_the_middle_of_the_resampled_means():
    # Two problems: the mean is 0, 1/2 or 1 with chance 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 1]) == (0, 1)
    assert bootstrap_interval([0, 1], level=0.4) == (0.5, 0.5)


def test_the_interval_of_many_problems_is_two_standard_errors_on_each_side():
    scores_P = np.random.default_rng(1).random(400)
    low, high = bootstrap_interval(scores_P, num_resamples=4000)
    for bound, side in ((low, -1), (high, 1)):
        # A percentile's own noise: sqrt(0.025 * 0.975 / 4000) / 0.058 is 0.04 standard errors.
        assert bound == pytest.approx(scores_P.mean() + side * 1.96 * standard_error(scores_P), abs=0.002)


def test_the_interval_depends_only_on_scores_and_seed():
    scores_P = np.random.default_rng(1).random(50)
    assert bootstrap_interval(scores_P, seed=3) == bootstrap_interval(scores_P, seed=3)
    assert bootstrap_interval(scores_P, seed=3) != bootstrap_interval(scores_P, seed=4)


def test_resampling_many_problems_takes_little_memory():
    # All at once, 2,000 x 5,000 draws of 8 bytes would be 80 MB, and as much again for their scores.
    tracemalloc.start()
    bootstrap_interval(np.arange(5000) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_equal_scores_have_p_value_1():
    others = 1.959964**2 / (3 + 1.959964**2)
    found = paired_bootstrap([1, 0, 0.5], [1, 0, 0.5])
    assert astuple(found) == (0, pytest.approx(-others), pytest.approx(others), 1)


def test_equal_gains_get_the_p_value_of_the_sign_test():
    # Each of three problems gained 1/2. By chance, all three have the same sign with probability 2 / 2^3.
    found = paired_bootstrap([0, 0.25, 0.5], [0.5, 0.75, 1])
    others = 1.959964**2 / (3 + 1.959964**2)
    assert (found.mean, found.p_value) == (0.5, 0.25)
    assert (found.low, found.high) == (pytest.approx(0.5 - 1.5 * others), pytest.approx(0.5 + 0.5 * others))


def test_the_p_value_is_never_zero():
    assert paired_bootstrap([0] * 90, [1] * 90, num_resamples=99).p_value == 0.01
    # Far from 0 with little spread: only the observed mean is that far, none of the resampled ones.
    assert paired_bootstrap([0] * 40, [0.5, 0.6] * 20, num_resamples=99).p_value == 0.01


def test_the_p_value_of_two_problems_by_hand():
    # Differences 1 and 0: centred, the mean is -1/2, 0 or 1/2 with probability 1/4, 1/2, 1/4; 1/2 was observed.
    found = paired_bootstrap([0, 0], [1, 0])
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)
    assert found.p_value == pytest.approx(0.5, abs=0.02)  # four standard errors of 10,000 resamples


@pytest.mark.parametrize("gain", [1 / 2, 5 / 8, 7 / 8])
def test_a_resampled_mean_equal_up_to_rounding_counts_as_equally_far(gain):
    # Differences (gain, 0, 0). Resamples are as far as gain / 3 if they contain the gain never, (2/3)^3 = 8/27, or at
    # least twice, 3 * 1/9 * 2/3 + 1/27 = 7/27.
    assert paired_bootstrap([0, 0, 0], [gain, 0, 0]).p_value == pytest.approx(15 / 27, abs=0.02)


def test_the_comparison_is_paired_by_problem():
    # The problems differ far more than the runs, which would hide the gain from an unpaired test.
    a_P = np.arange(40) / 40
    b_P = a_P + 0.01 * (np.arange(40) % 4 != 0)
    assert paired_bootstrap(a_P, b_P).p_value < 0.001


def test_swapping_the_runs_changes_the_sign():
    a_P, b_P = [0, 0.25, 1, 0.5], [0.5, 0.25, 0.75, 1]
    there, back = paired_bootstrap(a_P, b_P), paired_bootstrap(b_P, a_P)
    assert there.mean == -back.mean == 0.1875
    assert there.p_value == back.p_value
    assert there.low == pytest.approx(-back.high)
