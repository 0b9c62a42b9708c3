import math

import pytest
import torch
from torch import Tensor, tensor

from grpo_cli.algorithm.loss import LossStats, policy_loss

# B sequences, T tokens


def one_token(ratio: float, advantage: float, **switches) -> tuple[float, float, LossStats]:
    """Loss, gradient of the log-probability, and statistics of one token with the old probability 0.05."""
    old = tensor([[math.log(0.05)]])
    logprobs = (old + math.log(ratio)).requires_grad_()
    loss, stats = policy_loss(logprobs, old, tensor([[advantage]]), tensor([1.0]), tensor([[True]]), **switches)
    loss.backward()
    return loss.item(), logprobs.grad.item(), stats


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clip_low", "clip_high"),
    [
        (1.1, 2.0, -2.2, -2.2, 0, 0),
        (1.3, 2.0, -2.4, 0, 0, 1),  # clipped to 1.2: no gradient
        (1.3, -2.0, 2.6, 2.6, 0, 0),  # too likely and bad: not clipped
        (0.7, -2.0, 1.6, 0, 1, 0),  # clipped to 0.8: no gradient
        (0.7, 2.0, -1.4, -1.4, 0, 0),
        (1.3, 0.0, 0, 0, 0, 0),
    ],
)
def test_clip_worked_by_hand(ratio, advantage, loss, gradient, clip_low, clip_high):
    assert one_token(ratio, advantage) == (
        pytest.approx(loss),
        pytest.approx(gradient),
        LossStats(1, clip_low, clip_high, 0),
    )


def test_epsilon_high_changes_only_the_upper_bound():
    assert one_token(1.27, 1.0, epsilon_high=0.28)[1] == pytest.approx(-1.27)
    assert one_token(1.29, 1.0, epsilon_high=0.28)[1] == 0
    assert one_token(0.79, -1.0, epsilon_high=0.28)[1] == 0


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [1e-6, 0.01, 1.0, 10.9, 11.1, 18.0])
def test_epsilon_10_clips_only_above_a_ratio_of_11(ratio, advantage):
    _, gradient, stats = one_token(ratio, advantage, epsilon=10.0)
    clipped = ratio > 11 and advantage > 0
    assert (gradient == 0) == clipped
    assert (stats.clip_low, stats.clip_high) == (0, clipped)


def test_dual_clip_bounds_the_loss_of_a_likely_bad_token():
    assert one_token(2.9, -1.0, dual_clip=3.0)[:2] == (pytest.approx(2.9), pytest.approx(2.9))
    loss, gradient, stats = one_token(3.1, -1.0, dual_clip=3.0)
    assert (loss, gradient) == (pytest.approx(3.0), 0)
    assert stats.clip_high == 1
    assert one_token(1.1, 1.0, dual_clip=3.0)[:2] == (pytest.approx(-1.1), pytest.approx(-1.1))


@pytest.mark.parametrize(
    ("ratio", "gradient", "clip_high"),
    [(0.01, -0.02, 0), (4.0, -8.0, 0), (7.0, -10.0, 1)],  # -min(ratio, 5) * 2: there is no lower bound
)
def test_cispo_bounds_the_weight_and_keeps_the_gradient(ratio, gradient, clip_high):
    loss, actual, stats = one_token(ratio, 2.0, surrogate="cispo", epsilon_high=4.0)
    assert actual == pytest.approx(gradient)
    assert loss == pytest.approx(gradient * math.log(0.05 * ratio), rel=1e-5)
    assert (stats.clip_low, stats.clip_high) == (0, clip_high)


@pytest.mark.parametrize("ratio", [0.01, 1.0, 7.0])
def test_without_a_surrogate_the_gradient_is_the_advantage_at_any_ratio(ratio):
    loss, gradient, stats = one_token(ratio, 2.0, surrogate="none")
    assert gradient == -2
    assert loss == pytest.approx(-2 * math.log(0.05 * ratio), rel=1e-5)
    assert (stats.clip_low, stats.clip_high) == (0, 0)


def test_beta_adds_the_kl_with_its_gradient():
    # policy 0.05, reference 0.1: k3 = 2 - 1 - ln 2, its gradient 1 - 2
    reference = tensor([[math.log(0.1)]])
    loss, gradient, stats = one_token(1.0, 0.0, beta=0.5, ref_logprobs_BT=reference)
    assert loss == pytest.approx(0.5 * (1 - math.log(2)))
    assert gradient == pytest.approx(-0.5)
    assert stats.kl_ref.item() == pytest.approx(1 - math.log(2))


def test_each_token_has_its_own_advantage():
    # ratio 1: the gradient is -weight * advantage
    logprobs = torch.zeros(1, 3, requires_grad=True)
    advantages = tensor([[1.0, -2.0, math.nan]])
    mask = tensor([[True, True, False]])
    loss, _ = policy_loss(logprobs, torch.zeros(1, 3), advantages, tensor([0.5]), mask)
    loss.backward()
    assert loss.item() == 0.5
    assert logprobs.grad.tolist() == [[-0.5, 1.0, 0.0]]


def test_an_unbiased_kl_uses_the_ratio_of_the_token_even_at_sequence_level():
    # policy 0.1, old 0.05, reference 0.2: ratio 2, k3 = 2 - 1 - ln 2, with the gradient 2 (k3 + 1 - 2) = -2 ln 2; the
    # second token has ratio 1, so the ratio of the response would be the square root of 2
    old, reference = tensor([[0.05, 0.5]]).log(), tensor([[0.2, 0.5]]).log()
    logprobs = tensor([[0.1, 0.5]]).log().requires_grad_()
    switches = {"level": "sequence", "beta": 0.5, "kl_estimator": "k3_unbiased", "ref_logprobs_BT": reference}
    loss, _ = policy_loss(logprobs, old, torch.zeros(1, 2), tensor([1.0]), torch.ones(1, 2), **switches)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 2 * (1 - math.log(2)))
    torch.testing.assert_close(logprobs.grad, tensor([[-0.5 * 2 * math.log(2), 0.0]]))


def test_the_reported_kl_is_k3_for_any_estimator_in_the_loss():
    reference = tensor([[math.log(0.1)]])
    for switches in ({"beta": 0.0}, {"beta": 0.5, "kl_estimator": "k1"}):
        _, _, stats = one_token(1.0, 1.0, ref_logprobs_BT=reference, **switches)
        assert stats.kl_ref.item() == pytest.approx(1 - math.log(2))


def test_the_sampler_correction_scales_the_surrogate_but_not_the_kl():
    reference = tensor([[math.log(0.1)]])
    switches = {"beta": 0.5, "ref_logprobs_BT": reference, "correction_BT": tensor([[0.25]])}
    assert one_token(1.0, 2.0, **switches)[1] == pytest.approx(-0.25 * 2 - 0.5)


def test_a_clipped_sequence_ratio_removes_the_gradient_of_the_whole_response():
    # geometric means 1.5 and 1.0: the whole first response is above 1.2, although its second token is not
    old = torch.zeros(2, 2)
    logprobs = tensor([[2.25, 1.0], [1.3, 1 / 1.3]]).log().requires_grad_()
    loss, stats = policy_loss(logprobs, old, torch.ones(2, 2), tensor([0.5, 0.5]), torch.ones(2, 2), level="sequence")
    loss.backward()
    assert logprobs.grad[0].tolist() == [0, 0]
    torch.testing.assert_close(logprobs.grad[1], tensor([-0.5, -0.5]))
    assert stats.clip_high == 2


def test_the_first_step_after_a_rollout_has_the_plain_policy_gradient():
    # ratio exactly 1: gradient -weight * advantage, and nothing is clipped even with epsilon 0
    logprobs = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, stats = policy_loss(
        logprobs,
        logprobs.detach(),
        tensor([[1.5] * 3, [-0.5] * 3]),
        tensor([0.25, 0.125]),
        torch.ones(2, 3, dtype=torch.bool),
        epsilon=0.0,
    )
    loss.backward()
    assert logprobs.grad.tolist() == [[-0.375] * 3, [0.0625] * 3]
    assert (stats.clip_low, stats.clip_high) == (0, 0)


def train_softmax_policy(epsilon: float, num_minibatches: int) -> Tensor:
    """The logits of four actions after one iteration of gradient descent from one set of samples."""
    logits = torch.zeros(4, requires_grad=True)
    actions = torch.arange(4).repeat(8)
    advantages = tensor([1.0, -1.0, 0.5, -0.5]).repeat(8)
    old = logits.detach().log_softmax(0)[actions]
    for chosen in torch.arange(32).chunk(num_minibatches):
        logprobs_BT = logits.log_softmax(0)[actions[chosen]][:, None]
        loss, _ = policy_loss(
            logprobs_BT,
            old[chosen][:, None],
            advantages[chosen][:, None],
            torch.full((len(chosen),), 1 / len(chosen)),
            torch.ones(len(chosen), 1, dtype=torch.bool),
            epsilon=epsilon,
        )
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    return logits.detach()


def test_epsilon_changes_the_weights_if_a_rollout_has_several_minibatches():
    assert not torch.equal(train_softmax_policy(0.1, num_minibatches=4), train_softmax_policy(0.2, num_minibatches=4))
    assert torch.equal(train_softmax_policy(0.1, num_minibatches=1), train_softmax_policy(0.2, num_minibatches=1))


def test_an_unknown_surrogate_raises():
    with pytest.raises(AssertionError, match="trust_region"):
        one_token(1.0, 1.0, surrogate="trust_region")
