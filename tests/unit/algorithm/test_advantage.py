from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.advantage import group_advantages, less_kl_to_go, whitened

WALK_THROUGH = tensor([[1.1, 0.0, 0.1, 0.0]])  # right and well-formed; untagged; wrong but well-formed; garbled


def test_grpo_advantages_with_the_population_std():
    # mean 0.3, variance (0.64 + 0.09 + 0.04 + 0.09) / 4 = 0.215, std 0.46368
    advantages = group_advantages(WALK_THROUGH, eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1.72532, -0.64700, -0.43133, -0.64700]]), atol=1e-5, rtol=0)


def test_grpo_advantages_with_the_sample_std():
    # mean 0.5, variance 4 * 0.25 / 3, std 0.57735
    advantages = group_advantages(tensor([[1.0, 0, 1, 0]]), std_ddof=1, eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1, -1, 1, -1]]) * 0.866025, atol=1e-6, rtol=0)


def test_dr_grpo_does_not_divide_by_the_std():
    # mean 0.25: the single success is 0.75 above it
    assert group_advantages(tensor([[1.0, 0, 0, 0]]), scale="none").tolist() == [[0.75, -0.25, -0.25, -0.25]]
    torch.testing.assert_close(group_advantages(WALK_THROUGH, scale="none"), tensor([[0.8, -0.3, -0.2, -0.3]]))


def test_eps_is_added_to_the_std():
    # centred by 0.5, std 0.5
    assert group_advantages(tensor([[1.0, 0.0]]), eps=0.5).tolist() == [[0.5, -0.5]]


def test_each_group_is_normalised_separately():
    advantages = group_advantages(tensor([[1.0, 0.0], [10.0, 4.0]]), eps=0.0)
    assert advantages.tolist() == [[1.0, -1.0], [1.0, -1.0]]


def test_leave_one_out_compares_with_the_mean_of_the_others():
    # 1 - 0, then three times 0 - 1/3
    advantages = group_advantages(tensor([[1.0, 0, 0, 0]]), baseline="leave_one_out", scale="none")
    torch.testing.assert_close(advantages, tensor([[1, -1 / 3, -1 / 3, -1 / 3]]))


def test_batch_mean_compares_across_prompts():
    # mean 0.75
    advantages = group_advantages(tensor([[1.0, 1.0], [1.0, 0.0]]), baseline="batch_mean", scale="none")
    assert advantages.tolist() == [[0.25, 0.25], [0.25, -0.75]]


def test_batch_std_is_the_std_of_all_centred_rewards():
    # centred by group: (1, -1), (3, -3); variance (1 + 1 + 9 + 9) / 4 = 5
    advantages = group_advantages(tensor([[2.0, 0.0], [6.0, 0.0]]), scale="batch_std", eps=0.0)
    torch.testing.assert_close(advantages, tensor([[1.0, -1.0], [3.0, -3.0]]) / 5**0.5)


def test_raw_batch_std_is_the_std_of_the_rewards_before_centring():
    # mean 2, variance (0 + 4 + 16 + 4) / 4 = 6; as a sample, 24 / 3 = 8
    rewards = tensor([[2.0, 0.0], [6.0, 0.0]])
    for ddof, variance in ((0, 6), (1, 8)):
        advantages = group_advantages(rewards, scale="raw_batch_std", std_ddof=ddof, eps=0.0)
        torch.testing.assert_close(advantages, tensor([[1.0, -1.0], [3.0, -3.0]]) / variance**0.5)


def test_a_token_pays_for_its_own_kl_and_the_kl_of_all_later_tokens():
    # to go: 0.75, -0.25, 0.5
    advantages = less_kl_to_go(tensor(2.0), tensor([1.0, -0.75, 0.5]), beta=2.0)
    assert advantages.tolist() == [0.5, 2.5, 1.0]


def test_whitening_counts_each_token():
    # tokens 3, 3, 3 and -1: mean 2, variance (3 + 9) / 4 = 3
    long, short = whitened([tensor(3.0), tensor(-1.0)], [3, 1], [True, True], eps=0.0)
    assert long.item() == pytest.approx(1 / 3**0.5)
    assert short.item() == pytest.approx(-3 / 3**0.5)


def test_token_advantages_and_response_advantages_are_whitened_together():
    # tokens 1, 5 and 3: mean 3, sample variance (4 + 4) / 2 = 4
    by_token, shared = whitened([tensor([1.0, 5.0]), tensor(3.0)], [2, 1], [True, True], std_ddof=1, eps=2.0)
    assert by_token.tolist() == [-0.5, 0.5]
    assert shared.item() == 0


def test_responses_that_are_not_counted_do_not_affect_the_statistics():
    advantages = [tensor(1.0), tensor(-1.0), tensor(100.0)]
    first, second, _ = whitened(advantages, [2, 2, 50], [True, True, False], eps=0.0)
    assert (first.item(), second.item()) == (1, -1)


@pytest.mark.parametrize("reward", [0.1, 0.3, 1.1])
def test_whitening_equal_advantages_gives_zeros(reward):
    lengths = [1 + number % 7 for number in range(64)]
    assert not any(whitened([tensor(reward)] * 64, lengths, [True] * 64, eps=1e-8))
    assert not any(whitened([tensor(reward)] * 64, lengths, [False] * 64, eps=1e-8))


def test_whitening_gives_the_same_bits_on_any_number_of_ranks():
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (64,), generator=rng).tolist()
    advantages = [
        torch.randn(length, generator=rng, dtype=torch.float64) * 10**exponent
        for length, exponent in zip(lengths, [-3, 0, 3, 5] * 16, strict=True)
    ]
    on_one_rank = whitened(advantages, lengths, [True] * 64)
    for num_ranks in (2, 3):
        barrier, values_of_ranks = Barrier(num_ranks), [None] * num_ranks

        def of_rank(first, num_ranks=num_ranks, barrier=barrier, values_of_ranks=values_of_ranks):
            def gather(value):
                values_of_ranks[first] = value
                barrier.wait()
                values = list(values_of_ranks)
                barrier.wait()
                return values

            indices = range(first, 64, num_ranks)
            arguments = [advantages[i] for i in indices], [lengths[i] for i in indices]
            return zip(indices, whitened(*arguments, [True] * len(indices), gather=gather), strict=True)

        with ThreadPoolExecutor(num_ranks) as ranks:
            results = [pair for of_rank_pairs in ranks.map(of_rank, range(num_ranks)) for pair in of_rank_pairs]
        assert len(results) == 64
        assert all(torch.equal(values, on_one_rank[i]) for i, values in results)


def test_without_a_baseline_the_reward_is_the_advantage():
    rewards = tensor([[1.1, 0.1], [0.1, 0.1]])
    assert torch.equal(group_advantages(rewards, baseline="none", scale="none"), rewards)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-6])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("reward", [0.1, 0.3, 1.1])
def test_a_group_of_equal_rewards_has_zero_advantages(reward, scale, baseline, eps, dtype):
    for group_size in range(2, 65):
        rewards_PG = torch.full((1, group_size), reward, dtype=dtype)
        assert not group_advantages(rewards_PG, baseline=baseline, scale=scale, eps=eps).any()


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
def test_a_group_of_equal_rewards_has_zero_advantages_next_to_another_group(scale):
    rewards_PG = tensor([[0.1] * 16, [1.1] + [0.1] * 15])
    agreeing, differing = group_advantages(rewards_PG, scale=scale)
    assert not agreeing.any()
    assert differing.all()


@pytest.mark.parametrize("scale", ["batch_std", "none"])
def test_a_batch_of_equal_rewards_has_zero_advantages_with_the_batch_mean(scale):
    assert not group_advantages(torch.full((3, 16), 0.1), baseline="batch_mean", scale=scale, eps=1e-8).any()


def test_a_group_of_equal_rewards_is_not_divided_by_its_tiny_std():
    assert not group_advantages(torch.full((1, 16), 0.1), baseline="none", scale="group_std", eps=1e-8).any()


def test_rewards_are_not_changed_and_their_dtype_is_kept():
    rewards = tensor([[1.0, 0.0]])
    assert group_advantages(rewards).dtype == torch.float32
    assert rewards.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("switch", [{"baseline": "median"}, {"scale": "iqr"}])
def test_unknown_switches_raise(switch):
    with pytest.raises(AssertionError, match=r"median|iqr"):
        group_advantages(WALK_THROUGH, **switch)
