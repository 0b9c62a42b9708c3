import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.value import generalised_advantages, value_loss

REWARDS, VALUES = tensor([0.0, -0.5, 1.0]), tensor([0.5, 0.25, 0.75])


def test_advantages_worked_by_hand():
    # deltas: 0 + 0.8 * 0.25 - 0.5 = -0.3, -0.5 + 0.8 * 0.75 - 0.25 = -0.15, 1 - 0.75 = 0.25; each later one counts 0.4
    advantages = generalised_advantages(REWARDS, VALUES, gamma=0.8, gae_lambda=0.5)
    assert advantages.tolist() == pytest.approx([-0.3 + 0.4 * (-0.15 + 0.4 * 0.25), -0.15 + 0.4 * 0.25, 0.25])


def test_with_lambda_1_the_advantage_is_the_return_minus_the_value():
    # returns: 0.5, 0.5, 1
    assert generalised_advantages(REWARDS, VALUES).tolist() == [0.0, 0.25, 0.25]


def test_with_lambda_0_the_advantage_is_what_one_token_changed():
    assert generalised_advantages(REWARDS, VALUES, gae_lambda=0.0).tolist() == [-0.25, 0.0, 0.25]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (1.0, 0.95), (0.99, 0.5), (0.7, 0.0)])
def test_advantages_are_the_mean_of_the_k_step_advantages_weighted_by_powers_of_lambda(gamma, gae_lambda):
    # Equations 11 to 16 of the paper, without deltas: (1 - lambda) * sum over k of lambda^(k-1) * A^(k), where A^(k) is
    # k rewards, then the value. Beyond the end, all A^(k) are equal, and their weights add up to lambda^(T-t-1).
    draw = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(9, generator=draw, dtype=torch.float64) for _ in range(2))
    after = [*values.tolist(), 0.0]
    expected = []
    for t in range(9):
        of_k = [
            sum(gamma**i * rewards[t + i].item() for i in range(k)) + gamma**k * after[t + k] - after[t]
            for k in range(1, 9 - t + 1)
        ]
        weighted = [(1 - gae_lambda) * gae_lambda**k * advantage for k, advantage in enumerate(of_k[:-1])]
        expected.append(sum(weighted) + gae_lambda ** (len(of_k) - 1) * of_k[-1])
    advantages = generalised_advantages(rewards, values, gamma=gamma, gae_lambda=gae_lambda)
    assert advantages.tolist() == pytest.approx(expected)


def test_a_response_without_tokens_has_no_advantages():
    assert generalised_advantages(tensor([]), tensor([])).tolist() == []


def test_a_value_gains_nothing_beyond_the_clip():
    # old 0, return 1, clip 0.25: 0.5 went too far, 0.125 not, -0.5 went the wrong way, and 1.5 is beyond the return
    values_N = tensor([0.5, 0.125, -0.5, 1.5], requires_grad=True)
    losses_N, clipped_N = value_loss(values_N, torch.zeros(4), torch.ones(4), clip=0.25)
    assert losses_N.tolist() == [0.75**2 / 2, 0.875**2 / 2, 1.5**2 / 2, 0.75**2 / 2]
    assert clipped_N.tolist() == [True, False, False, True]
    losses_N.sum().backward()
    assert values_N.grad.tolist() == [0, -0.875, -1.5, 0]


def test_without_a_clip_the_loss_is_half_the_squared_error():
    losses_N, clipped_N = value_loss(tensor([0.5, 3.0]), torch.zeros(2), torch.ones(2), clip=None)
    assert losses_N.tolist() == [0.125, 2.0]
    assert not clipped_N.any()
