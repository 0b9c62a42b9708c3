from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.advantage import group_advantages, less_kl_to_go, whitened

WALK_THROUGH = tensor([[1.1, 0.0, 0.1, 0.0]])  # right and well-formed, untagged, well-formed and wrong, garbled


def test_grpo_walk_through_with_the_population_std():
    # mean 0.3, variance (0.64 + 0.09 + 0.04 + 0.09) / 4 = 0.215, std 0.46368
    advantages = group_advantages(WALK_THROUGH, eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1.72532, -0.64700, -0.43133, -0.64700]]), atol=1e-5, rtol=0)


def test_grpo_walk_through_with_the_sample_std():
    # mean 0.5, variance 4 * 0.25 / 3, std 0.57735
    advantages = group_advantages(tensor([[1.0, 0, 1, 0]]), std_ddof=1, eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1, -1, 1, -1]]) * 0.866025, atol=1e-6, rtol=0)


def test_dr_grpo_keeps_the_size_of_the_surprise():
    # mean 0.25: the lone success stands 0.75 above it
    assert group_advantages(tensor([[1.0, 0, 0, 0]]), scale="none").tolist() == [[0.75, -0.25, -0.25, -0.25]]
    torch.testing.assert_close(group_advantages(WALK_THROUGH, scale="none"), tensor([[0.8, -0.3, -0.2, -0.3]]))


def test_eps_is_added_to_the_std():
    # centred by 0.5, std 0.5
    assert group_advantages(tensor([[1.0, 0.0]]), eps=0.5).tolist() == [[0.5, -0.5]]


def test_each_group_is_normalised_by_itself():
    advantages = group_advantages(tensor([[1.0, 0.0], [10.0, 4.0]]), eps=0.0)
    assert advantages.tolist() == [[1.0, -1.0], [1.0, -1.0]]


def test_leave_one_out_compares_with_the_mean_of_the_others():
    # 1 - 0; 0 - 1/3, three times
    advantages = group_advantages(tensor([[1.0, 0, 0, 0]]), baseline="leave_one_out", scale="none")
    torch.testing.assert_close(advantages, tensor([[1, -1 / 3, -1 / 3, -1 / 3]]))


def test_batch_mean_compares_across_prompts():
    # mean 0.75
    advantages = group_advantages(tensor([[1.0, 1.0], [1.0, 0.0]]), baseline="batch_mean", scale="none")
    assert advantages.tolist() == [[0.25, 0.25], [0.25, -0.75]]


def test_batch_std_is_that_of_the_centred_rewards_of_all_prompts():
    # centred by group: (1, -1), (3, -3); variance (1 + 1 + 9 + 9) / 4 = 5
    advantages = group_advantages(tensor([[2.0, 0.0], [6.0, 0.0]]), scale="batch_std", eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1.0, -1.0], [3.0, -3.0]]) / 5**0.5)


def test_raw_batch_std_is_that_of_the_rewards_before_they_are_centred():
    # mean 2, variance (0 + 4 + 16 + 4) / 4 = 6; as a sample, 24 / 3 = 8
    rewards = tensor([[2.0, 0.0], [6.0, 0.0]])
    for ddof, variance in ((0, 6), (1, 8)):
        advantages = group_advantages(rewards, scale="raw_batch_std", std_ddof=ddof, eps=0.0)
        torch.testing.assert_close(advantages, tensor([[1.0, -1.0], [3.0, -3.0]]) / variance**0.5)


def test_a_token_answers_for_its_own_divergence_and_all_that_follows():
    # to go: 0.75, -0.25, 0.5
    advantages = less_kl_to_go(tensor(2.0), tensor([1.0, -0.75, 0.5]), beta=2.0)
    assert advantages.tolist() == [0.5, 2.5, 1.0]


def test_whitening_counts_each_token():
    # tokens 3, 3, 3 and -1: mean 2, variance (3 + 9) / 4 = 3
    long, short = whitened([tensor(3.0), tensor(-1.0)], [3, 1], [True, True], eps=0.0)
    assert long.item() == pytest.approx(1 / 3**0.5)
    assert short.item() == pytest.approx(-3 / 3**0.5)


def test_tokens_of_their_own_advantage_are_whitened_with_those_that_share_one():
    # tokens 1, 5 and 3: mean 3, sample variance (4 + 4) / 2 = 4
    own, shared = whitened([tensor([1.0, 5.0]), tensor(3.0)], [2, 1], [True, True], std_ddof=1, eps=2.0)
    assert own.tolist() == [-0.5, 0.5]
    assert shared.item() == 0


def test_what_is_not_counted_is_no_part_of_the_statistics():
    advantages = [tensor(1.0), tensor(-1.0), tensor(100.0)]
    first, second, _ = whitened(advantages, [2, 2, 50], [True, True, False], eps=0.0)
    assert (first.item(), second.item()) == (1, -1)


@pytest.mark.parametrize("reward", [0.1, 0.3, 1.1])
def test_a_batch_whose_tokens_agree_is_whitened_to_nothing(reward):
    lengths = [1 + number % 7 for number in range(64)]
    assert not any(whitened([tensor(reward)] * 64, lengths, [True] * 64, eps=1e-8))
    assert not any(whitened([tensor(reward)] * 64, lengths, [False] * 64, eps=1e-8))


def test_whitening_is_to_the_last_bit_the_same_on_any_number_of_ranks():
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (64,), generator=rng).tolist()
    advantages = [
        torch.randn(length, generator=rng, dtype=torch.float64) * 10**exponent
        for length, exponent in zip(lengths, [-3, 0, 3, 5] * 16, strict=True)
    ]
    alone = whitened(advantages, lengths, [True] * 64)
    for num_ranks in (2, 3):
        barrier, given = Barrier(num_ranks), [None] * num_ranks

        def of_rank(first, num_ranks=num_ranks, barrier=barrier, given=given):
            def gather(value):
                given[first] = value
                barrier.wait()
                values = list(given)
                barrier.wait()
                return values

            mine = range(first, 64, num_ranks)
            own = [advantages[i] for i in mine], [lengths[i] for i in mine]
            return zip(mine, whitened(*own, [True] * len(mine), gather=gather), strict=True)

        with ThreadPoolExecutor(num_ranks) as ranks:
            found = [pair for of_one in ranks.map(of_rank, range(num_ranks)) for pair in of_one]
        assert len(found) == 64
        assert all(torch.equal(values, alone[i]) for i, values in found)


def test_without_a_baseline_the_reward_is_the_advantage():
    rewards = tensor([[1.1, 0.1], [0.1, 0.1]])
    assert torch.equal(group_advantages(rewards, baseline="none", scale="none"), rewards)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-6])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("reward", [0.1, 0.3, 1.1])
def test_a_group_that_agrees_has_nothing_to_teach(reward, scale, baseline, eps, dtype):
    for group_size in range(2, 65):
        rewards_PG = torch.full((1, group_size), reward, dtype=dtype)
        assert not group_advantages(rewards_PG, baseline=baseline, scale=scale, eps=eps).any()


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_an_agreeing_group_stays_at_zero_beside_one_that_differs(scale):
    rewards_PG = tensor([[0.1] * 16, [1.1] + [0.1] * 15])
    agreeing, differing = group_advantages(rewards_PG, scale=scale)
    assert not agreeing.any()
    assert differing.all()


@pytest.mark.parametrize("scale", ["batch_std", "none"])
def test_a_batch_that_agrees_has_nothing_to_teach_against_its_mean(scale):
    assert not group_advantages(torch.full((3, 16), 0.1), baseline="batch_mean", scale=scale, eps=1e-8).any()


def test_a_group_that_agrees_is_not_blown_up_where_only_its_std_is_its_own():
    assert not group_advantages(torch.full((1, 16), 0.1), baseline="none", scale="group_std", eps=1e-8).any()


def test_rewards_are_left_as_they_were_and_their_dtype_kept():
    rewards = tensor([[1.0, 0.0]])
    assert group_advantages(rewards).dtype == torch.float32
    assert rewards.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("switch", [{"baseline": "median"}, {"scale": "iqr"}])
def test_unknown_switches_are_refused(switch):
    with pytest.raises(ValueError, match="unknown"):
        group_advantages(WALK_THROUGH, **switch)
