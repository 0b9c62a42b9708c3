from collections import Counter
from fractions import Fraction
from itertools import permutations
from math import comb

import pytest

from grpo_cli.evaluation.majority import Votes, majority_at_k

SILENT = -1


def chance(counts, right, k, num_silent=0):
    return majority_at_k(Votes(counts, right, num_silent), k)


def by_enumeration(counts, right, k, num_silent):
    """The share of all ordered draws of k that a right answer wins; in a tie the answer seen first wins."""
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
def test_majority_at_k_is_the_share_of_ordered_draws_that_a_right_answer_wins(counts, right, num_silent):
    for k in range(1, sum(counts) + num_silent + 1):
        exact = by_enumeration(counts, right, k, num_silent)
        assert chance(counts, right, k, num_silent) == float(exact), k


def test_two_answers_need_more_than_half_the_votes_and_share_ties():
    for n in range(1, 17):
        for c in range(n + 1):
            for k in range(1, n + 1):
                ways = [comb(c, a) * comb(n - c, k - a) * (2 if 2 * a > k else 2 * a == k) for a in range(k + 1)]
                closed_form = sum(ways) / (2 * comb(n, k))
                assert chance([c, n - c], [True, False], k) == pytest.approx(closed_form, abs=1e-15), (n, c, k)


def test_one_sample_wins_its_own_vote():
    assert chance([3, 4], [True, False], 1, num_silent=1) == 3 / 8


def test_silent_samples_do_not_vote():
    # The only vote is right, and it is one of the 2 drawn of 8 samples with probability 2/8.
    assert chance([1], [True], 2, num_silent=7) == 0.25
    assert chance([1], [True], 8, num_silent=7) == 1


def test_a_vote_without_voters_is_lost():
    assert chance([], [], 4, num_silent=4) == 0
    assert chance([0], [False], 4, num_silent=4) == 0


def test_each_answer_of_a_three_way_tie_wins_a_third():
    assert chance([2, 2, 2], [True, False, False], 6) == 1 / 3
    assert chance([2, 2, 2], [True, False, True], 6) == 2 / 3


def test_large_votes_are_exact_too():
    # 64 different answers: each is as likely to be seen first
    assert chance([1] * 64, [True] + [False] * 63, 32) == 1 / 64
    assert chance([1] * 64, [True] * 64, 32) == 1
    # both answers have the same number of votes
    assert chance([512, 512], [True, False], 64) == 0.5


def test_drawing_more_samples_than_there_are_fails():
    with pytest.raises(AssertionError):
        chance([2], [True], 4, num_silent=1)
