import math

import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.ratio import importance_ratio

MASK = tensor([[True, True, True, False]])


def test_the_ratio_of_a_token_is_the_ratio_of_its_probabilities():
    old = tensor([[0.2, 0.5, 0.4, 0.9]]).log()
    new = tensor([[0.4, 0.5, 0.1, 0.1]]).log()
    torch.testing.assert_close(importance_ratio(new, old, MASK), tensor([[2.0, 1.0, 0.25, 1.0]]))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_log_ratio_is_clamped_at_20_and_has_no_gradient_beyond(level):
    logprobs = tensor([[800.0], [-800.0], [19.0]], requires_grad=True)
    ratio = importance_ratio(logprobs, torch.zeros(3, 1), torch.ones(3, 1, dtype=torch.bool), level=level)
    ratio.sum().backward()
    torch.testing.assert_close(ratio, tensor([[20.0], [-20.0], [19.0]]).exp())
    torch.testing.assert_close(logprobs.grad, tensor([[0.0], [0.0], [math.exp(19)]]))


def test_the_ratio_of_a_sequence_is_the_geometric_mean_over_its_tokens():
    # 2 * 1 * 4 = 8, its cube root is 2; the 16 of the padding does not count
    log_ratio = tensor([[2.0, 1.0, 4.0, 16.0]]).log()
    ratio = importance_ratio(log_ratio, torch.zeros(1, 4), MASK, level="sequence")
    torch.testing.assert_close(ratio, torch.full((1, 4), 2.0))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_ratio_of_a_policy_to_itself_is_exactly_one(level):
    logprobs = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(50) < tensor([[50], [7], [0]])
    assert torch.equal(importance_ratio(logprobs, logprobs.clone(), mask, level=level), torch.ones(3, 50))


@pytest.mark.parametrize("garbage", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_padding_affects_neither_value_nor_gradient(level, garbage):
    logprobs = tensor([[-1.0, -2.0, -3.0, garbage]], requires_grad=True)
    ratio = importance_ratio(logprobs, tensor([[-1.0, -1.0, -1.0, garbage]]), MASK, level=level)
    ratio[MASK].sum().backward()
    assert ratio.isfinite().all()
    assert logprobs.grad.isfinite().all()
    assert logprobs.grad[0, 3] == 0


def test_an_unknown_level_raises():
    with pytest.raises(AssertionError, match="word"):
        importance_ratio(torch.zeros(1, 4), torch.zeros(1, 4), MASK, level="word")
