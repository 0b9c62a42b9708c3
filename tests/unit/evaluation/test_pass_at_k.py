from itertools import combinations
from math import prod

import pytest

from grpo_cli.evaluation.measures import mixed_group_share, pass_at_k


def test_pass_at_k_is_the_textbook_product_up_to_n_32():
    for n in range(1, 33):
        for c in range(n + 1):
            for k in range(1, n + 1):
                product = 1 - prod(1 - k / i for i in range(n - c + 1, n + 1))
                assert pass_at_k(n, c, k) == pytest.approx(product, abs=1e-12), (n, c, k)


def test_pass_at_1_is_the_share_of_right_samples():
    assert pass_at_k(8, 3, 1) == 0.375


def test_k_above_n_fails():
    with pytest.raises(AssertionError):
        pass_at_k(4, 1, 5)


def test_mixed_share_is_the_share_among_all_groups_drawn_without_replacement():
    for c in range(7):
        samples = [True] * c + [False] * (6 - c)
        for size in range(1, 7):
            groups = [len(set(group)) == 2 for group in combinations(samples, size)]
            assert mixed_group_share(6, c, size) == pytest.approx(sum(groups) / len(groups))


def test_a_group_larger_than_n_is_drawn_at_the_solve_rate():
    # 1 - (1/4)^8 - (3/4)^8
    assert mixed_group_share(4, 1, 8) == pytest.approx(1 - 0.0000153 - 0.1001129, abs=1e-7)


def test_a_problem_that_is_always_or_never_solved_teaches_nothing():
    assert [mixed_group_share(4, c, size) for c in (0, 4) for size in (2, 4, 16)] == [0.0] * 6


def test_a_group_of_one_teaches_nothing():
    assert mixed_group_share(4, 2, 1) == 0


def test_above_n_the_share_is_a_lower_bound_in_expectation():
    # With 2 samples at solve rate 1/2, c is 0, 1, 2 with probability 1/4, 1/2, 1/4. So the expected share for groups of
    # 4 is 1/2 (1 - 2/16), while the true share is 1 - 2/16.
    expected = sum(chance * mixed_group_share(2, c, 4) for c, chance in ((0, 0.25), (1, 0.5), (2, 0.25)))
    assert expected == pytest.approx(0.4375)
    assert expected < 0.875
