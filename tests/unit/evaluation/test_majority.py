from collections import Counter
from fractions import Fraction
from itertools import permutations
from math import comb

import pytest

from grpo_cli.evaluation.majority import majority_at_k

SILENT = -1


def by_enumeration(counts, right, k, num_silent):
    """The share of all ordered draws of k that a right answer wins; a tie goes to the one seen first."""
    votes = [answer for answer, count in enumerate(counts) for _ in range(count)] + [SILENT] * num_silent
    draws = list(permutations(votes, k))
    won = 0
    for draw in draws:
        tally = Counter(answer for answer in draw if answer != SILENT)  # in the order seen, which most_common keeps
        won += bool(tally) and right[tally.most_common(1)[0][0]]
    return Fraction(won, len(draws))


@pytest.mark.parametrize(
    ("counts", "right", "num_silent"),
    [
        ([3, 2], [True, False], 1),
        ([2, 2, 2], [True, False, False], 0),
        ([2, 2, 1], [False, True, True], 1),
        ([1, 1, 1, 1], [True, False, True, False], 2),
        ([3, 1, 1], [False, True, True], 1),
        ([1, 2, 3], [True, False, True], 1),
        ([4], [True], 2),
        ([2, 3], [False, False], 1),
    ],
)
def test_it_is_the_share_of_all_ordered_draws(counts, right, num_silent):
    for k in range(1, sum(counts) + num_silent + 1):
        exact = by_enumeration(counts, right, k, num_silent)
        assert majority_at_k(counts, right, k, num_silent) == float(exact), k


def test_between_two_answers_it_is_more_than_half_the_votes_or_half_the_ties():
    for n in range(1, 17):
        for c in range(n + 1):
            for k in range(1, n + 1):
                ways = [comb(c, a) * comb(n - c, k - a) * (2 if 2 * a > k else 2 * a == k) for a in range(k + 1)]
                closed_form = sum(ways) / (2 * comb(n, k))
                assert majority_at_k([c, n - c], [True, False], k) == pytest.approx(closed_form, abs=1e-15), (n, c, k)


def test_one_sample_elects_itself():
    assert majority_at_k([3, 4], [True, False], 1, num_silent=1) == 3 / 8


def test_silent_samples_do_not_vote():
    # One right vote beats six that are not cast; it is drawn in 2 of 8 places.
    assert majority_at_k([1], [True], 2, num_silent=7) == 0.25
    assert majority_at_k([1], [True], 8, num_silent=7) == 1


def test_where_nobody_votes_the_vote_is_lost():
    assert majority_at_k([], [], 4, num_silent=4) == 0
    assert majority_at_k([0], [False], 4, num_silent=4) == 0


def test_all_in_a_three_way_tie_win_a_third_each():
    assert majority_at_k([2, 2, 2], [True, False, False], 6) == 1 / 3
    assert majority_at_k([2, 2, 2], [True, False, True], 6) == 2 / 3


def test_large_polls_are_exact_too():
    # 64 different answers: each is as likely to be seen first
    assert majority_at_k([1] * 64, [True] + [False] * 63, 32) == 1 / 64
    assert majority_at_k([1] * 64, [True] * 64, 32) == 1
    # both halves are alike
    assert majority_at_k([512, 512], [True, False], 64) == 0.5


def test_no_more_can_be_drawn_than_there_are():
    with pytest.raises(AssertionError):
        majority_at_k([2], [True], 4, num_silent=1)
