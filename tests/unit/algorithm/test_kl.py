import math

import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.kl import kl_divergence

ESTIMATORS = ["k1", "k2", "k3", "k3_unbiased"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_kl_of_equal_policies_is_zero(estimator):
    logprobs = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    assert not kl_divergence(logprobs, logprobs.clone(), estimator=estimator).any()


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [
        # policy 0.5, reference 0.25: x = ln 2
        ("k1", math.log(2), math.log(2)),  # k2's gradient
        ("k2", math.log(2) ** 2 / 2, math.log(2)),
        ("k3", 0.5 - 1 + math.log(2), 1 - 0.5),  # 1 - exp(-x)
        ("k3_unbiased", 0.5 - 1 + math.log(2), 1 - 0.5),  # without a ratio, k3
    ],
)
def test_estimates_worked_by_hand(estimator, value, gradient):
    logprobs = tensor([[math.log(0.5)]], requires_grad=True)
    kl = kl_divergence(logprobs, tensor([[math.log(0.25)]]), estimator=estimator)
    kl.sum().backward()
    torch.testing.assert_close(kl.item(), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(logprobs.grad.item(), gradient, rtol=1e-6, atol=0)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimates_average_to_the_kl(estimator):
    policy, reference = tensor([0.7, 0.2, 0.1]), tensor([0.3, 0.3, 0.4])
    exact = (policy * (policy / reference).log()).sum()
    mean = (policy * kl_divergence(policy.log(), reference.log(), estimator=estimator)).sum()
    torch.testing.assert_close(mean, exact)


@pytest.mark.parametrize("estimator", ["k1", "k2"])
def test_k1_and_k2_have_the_gradient_of_the_kl_on_average(estimator):
    reference = tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    logits = tensor([0.9, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    logprobs = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference.log())).sum(), logits, retain_graph=True)
    kl = kl_divergence(logprobs, reference.log(), estimator=estimator)
    (sampled,) = torch.autograd.grad((logprobs.detach().exp() * kl).sum(), logits)
    torch.testing.assert_close(sampled, exact)


def test_the_unbiased_estimate_is_the_ratio_times_k3_with_the_gradient_of_both():
    # policy 0.5, sampled by 0.125, reference 0.25: ratio 4, k3 = 0.5 - 1 + ln 2, gradient 4 (k3 + 1 - 0.5) = 4 ln 2
    logprobs = tensor([[math.log(0.5)]], requires_grad=True)
    ratio = (logprobs - math.log(0.125)).exp()
    kl = kl_divergence(logprobs, tensor([[math.log(0.25)]]), estimator="k3_unbiased", ratio_BT=ratio)
    kl.sum().backward()
    assert kl.item() == pytest.approx(4 * (math.log(2) - 0.5))
    assert logprobs.grad.item() == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize(("estimator", "is_unbiased"), [("k3", False), ("k3_unbiased", True)])
def test_off_policy_only_the_unbiased_estimate_averages_to_the_kl_and_its_gradient(estimator, is_unbiased):
    sampler, reference = (tensor(p, dtype=torch.float64) for p in ([0.2, 0.5, 0.3], [0.3, 0.3, 0.4]))
    logits = tensor([0.9, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    logprobs = logits.log_softmax(0)
    exact = (logprobs.exp() * (logprobs - reference.log())).sum()
    kl = kl_divergence(logprobs, reference.log(), estimator=estimator, ratio_BT=(logprobs - sampler.log()).exp())
    sampled = (sampler * kl).sum()
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (exact, sampled)]
    assert torch.allclose(exact, sampled) == is_unbiased
    assert torch.allclose(*gradients) == is_unbiased


@pytest.mark.parametrize("x", [-800.0, 800.0])
def test_k3_is_clamped_if_the_log_ratio_is_beyond_20(x):
    logprobs = tensor([[x]], requires_grad=True)
    kl = kl_divergence(logprobs, torch.zeros(1, 1))
    kl.sum().backward()
    assert kl.item() == pytest.approx(math.expm1(20) - 20 if x < 0 else math.expm1(-20) + 20)
    assert logprobs.grad.item() == 0


def test_k3_of_close_policies_is_precise_in_float32():
    # x = 1e-4: x^2 / 2; exp(-x) - 1 + x in float32 would round to 0 or 6e-8
    k3 = kl_divergence(tensor([[0.0]]), tensor([[-1e-4]]))
    assert k3.item() == pytest.approx(5e-9, rel=1e-2)


def test_an_unknown_estimator_raises():
    with pytest.raises(AssertionError, match="k4"):
        kl_divergence(torch.zeros(1, 1), torch.zeros(1, 1), estimator="k4")
