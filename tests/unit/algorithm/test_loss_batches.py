"""The loss of a batch does not depend on splits, padding or extreme log ratios."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from grpo_cli.algorithm.loss import LossStats, policy_loss
from grpo_cli.algorithm.weighting import token_weights

# B sequences, T tokens, D inputs


def random_batch(seed: int, num_responses: int, width: int = 8) -> dict[str, Tensor]:
    """Responses of different lengths, of at least one token, after prompts of different lengths."""
    rng = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, 3, (num_responses, 1), generator=rng)
    ends = torch.randint(3, width + 1, (num_responses, 1), generator=rng)
    positions = torch.arange(width)
    mask = (positions >= starts) & (positions < ends)
    old = torch.randn(num_responses, width, generator=rng) - 2
    return {
        "inputs_BTD": torch.randn(num_responses, width, 5, generator=rng),
        "old_logprobs_BT": old,
        "ref_logprobs_BT": old + torch.randn(num_responses, width, generator=rng) / 2,
        "correction_BT": torch.rand(num_responses, width, generator=rng) + 0.5,
        "advantages_BT": torch.randn(num_responses, width, generator=rng),
        "mask_BT": mask,
    }


def gradient_of(weights_D: Tensor, batch: dict[str, Tensor], weights_B: Tensor, **switches) -> tuple[Tensor, LossStats]:
    """The gradient of a linear policy's weights, to which every token of every micro-batch adds."""
    weights_D = weights_D.clone().requires_grad_()
    rest = {name: values for name, values in batch.items() if name != "inputs_BTD"}
    logprobs_BT = batch["old_logprobs_BT"] + batch["inputs_BTD"] @ weights_D
    loss, stats = policy_loss(logprobs_BT, weights=weights_B, beta=0.1, **rest, **switches)
    loss.backward()
    return torch.cat([weights_D.grad, loss.detach()[None]]), stats


SWITCHES = [
    {"surrogate": "clip", "level": "token"},
    {"surrogate": "clip", "level": "sequence"},
    {"surrogate": "cispo"},
    {"surrogate": "none"},
    {"surrogate": "clip", "level": "sequence", "kl_estimator": "k3_unbiased"},
]


@pytest.mark.parametrize("switches", SWITCHES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    splits=st.lists(st.integers(0, 5), min_size=4, max_size=24),
    padding=st.integers(0, 4),
    weighting=st.sampled_from(["sequence_mean", "constant", "token_mean", "sum"]),
)
def test_splitting_and_padding_change_only_rounding(switches, seed, splits, padding, weighting):
    batch = random_batch(seed, num_responses=len(splits))
    weights_B = token_weights(batch["mask_BT"].sum(1), weighting=weighting, max_new_tokens=8)
    policy = torch.randn(5, generator=torch.Generator().manual_seed(seed)) / 3
    whole, whole_stats = gradient_of(policy, batch, weights_B, **switches)

    parts = []
    for part in set(splits):  # response i goes to micro-batch splits[i]
        rows = tensor([i for i, owner in enumerate(splits) if owner == part])
        members = {
            name: torch.cat([values[rows], values[rows][:, :padding]], 1) if values.dim() > 1 else values[rows]
            for name, values in batch.items()
        }
        members["mask_BT"][:, 8:] = False
        parts.append(gradient_of(policy, members, weights_B[rows], **switches))

    assert torch.linalg.norm(sum(g for g, _ in parts) - whole) <= 1e-6 * torch.linalg.norm(whole)
    torch.testing.assert_close(tensor([sum(s) for s in zip(*(s for _, s in parts), strict=True)]), tensor(whole_stats))


@pytest.mark.parametrize("moved", [-800.0, -30.0, 30.0, 800.0])
@pytest.mark.parametrize("switches", SWITCHES)
def test_a_log_ratio_beyond_20_gives_a_finite_loss_and_gradient(switches, moved):
    old = torch.full((1, 2), -900.0)
    logprobs = (old + tensor([[moved, 0.0]])).requires_grad_()
    loss, stats = policy_loss(
        logprobs,
        old,
        torch.full((1, 2), -1.0),
        tensor([0.5]),
        torch.ones(1, 2, dtype=torch.bool),
        beta=0.1,
        ref_logprobs_BT=old,
        **switches,
    )
    loss.backward()
    assert all(value.isfinite().all() for value in (loss, logprobs.grad, *stats))


@pytest.mark.parametrize("switches", SWITCHES)
def test_a_response_without_advantage_can_be_left_out_of_the_forward_pass(switches):
    batch = random_batch(seed=2, num_responses=6)
    del batch["inputs_BTD"], batch["ref_logprobs_BT"]
    batch["advantages_BT"][[0, 3]] = 0.0
    weights_B = token_weights(batch["mask_BT"].sum(1), weighting="sequence_mean", max_new_tokens=8)
    teaching = (batch["advantages_BT"] != 0).any(1)
    results = []
    for rows in (torch.ones(6, dtype=torch.bool), teaching):
        members = {name: values[rows] for name, values in batch.items()}
        logprobs = (members["old_logprobs_BT"] + 0.1).requires_grad_()
        policy_loss(logprobs, weights=weights_B[rows], **members, **switches)[0].backward()
        results.append(logprobs.grad)
    everything, teaching_only = results
    assert not everything[~teaching].any()
    assert torch.equal(everything[teaching], teaching_only)


@pytest.mark.parametrize("garbage", [math.inf, -math.inf, math.nan, 1e30])
@pytest.mark.parametrize("switches", SWITCHES)
def test_values_in_padding_never_matter(switches, garbage):
    batch = random_batch(seed=1, num_responses=4)
    batch["mask_BT"][3] = False  # a row of padding
    del batch["inputs_BTD"]
    dirty = {
        name: values.masked_fill(~batch["mask_BT"], garbage)
        if values.is_floating_point() and values.dim() > 1
        else values
        for name, values in batch.items()
    }
    results = []
    for case in (batch, dirty):
        logprobs = (case["old_logprobs_BT"] + 0.3).requires_grad_()
        loss, stats = policy_loss(logprobs, weights=tensor([0.1, 0.2, 0.3, 0.0]), beta=0.1, **case, **switches)
        loss.backward()
        results.append((loss, logprobs.grad, *stats))
    for clean, other in zip(*results, strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, other)
    assert not results[0][1][~batch["mask_BT"]].any()


def test_a_batch_with_only_padding_has_a_gradient_of_zero():
    # so that a rank without real sequences can take part in the backward pass
    logprobs = torch.full((2, 3), math.nan, requires_grad=True)
    loss, stats = policy_loss(
        logprobs, logprobs.detach(), torch.ones(2, 3), torch.zeros(2), torch.zeros(2, 3, dtype=torch.bool)
    )
    loss.backward()
    assert loss == 0
    assert not logprobs.grad.any()
    assert stats == LossStats(0, 0, 0, 0)
