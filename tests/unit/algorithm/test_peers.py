"""The options of the objective against the formulas of TRL, verl and OpenRLHF, in float64.

None of the three is installed. Each formula is written here in a few lines, with the library's own order of operations
and names, and autograd computes its gradient. P prompts, G completions a prompt, B = P*G sequences, T tokens.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from grpo_cli.algorithm.advantage import group_advantages, less_kl_to_go, whitened
from grpo_cli.algorithm.correction import sampler_correction
from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.algorithm.loss import policy_loss
from grpo_cli.algorithm.weighting import token_weights

P, G, T, MAX_NEW_TOKENS = 4, 3, 9, 12
B = P * G


class Batch:
    """Responses of different lengths, padded on the right. One group has equal rewards."""

    def __init__(self, seed: int, drift: float) -> None:
        rng = torch.Generator().manual_seed(seed)

        def noise(scale: float) -> Tensor:
            return scale * torch.randn(B, T, generator=rng, dtype=torch.float64)

        self.lengths = torch.randint(1, T + 1, (B,), generator=rng)
        self.mask = torch.arange(T) < self.lengths[:, None]
        self.old = noise(1.0) - 2
        self.sampler, self.ref = self.old + noise(0.4), self.old + noise(0.4)
        self.new = self.old + noise(drift)
        self.advantages = torch.randn(B, 1, generator=rng, dtype=torch.float64).expand(B, T)
        self.rewards = torch.randint(0, 3, (P, G), generator=rng).double()
        self.rewards[1] = 1.0


def ours(batch: Batch, logprobs: Tensor, weighting: str, correction: dict | None = None, **switches) -> Tensor:
    weights = token_weights(batch.lengths, weighting=weighting, max_new_tokens=MAX_NEW_TOKENS)
    weighed = None
    if correction:
        weighed = sampler_correction(batch.old, batch.sampler, batch.mask, **correction)
    given = {"ref_logprobs_BT": batch.ref, "correction_BT": weighed} | switches
    return policy_loss(logprobs, batch.old, batch.advantages, weights, batch.mask, **given)[0]


# How TRL, verl and OpenRLHF reduce the token losses.
REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sequence_mean": lambda loss, mask: ((loss * mask).sum(-1) / mask.sum(-1)).mean(),  # grpo, seq-mean-token-mean
    "token_mean": lambda loss, mask: (loss * mask).sum() / mask.sum(),  # dapo, bnpo, token-mean
    "constant": lambda loss, mask: (loss * mask).sum() / (len(loss) * MAX_NEW_TOKENS),  # dr_grpo
    "sum": lambda loss, mask: (loss * mask).sum(-1).mean(),  # seq-mean-token-sum
}


def trl(
    batch: Batch,
    logprobs: Tensor,
    reduction: str,
    *,
    low: float = 0.2,
    high: float = 0.2,
    delta: float | None = None,
    sequence: bool = False,
    cispo: float | None = None,
    beta: float = 0.0,
    unbiased: bool = False,
    is_cap: float | None = None,
    is_floor: float | None = None,
) -> Tensor:
    log_ratio = logprobs - batch.old
    if sequence:
        log_ratio = ((log_ratio * batch.mask).sum(-1) / batch.mask.sum(-1))[:, None]
    coef_1 = torch.exp(log_ratio)
    coef_2 = torch.clamp(coef_1, 1 - low, 1 + high)
    if delta is not None:
        coef_1 = torch.clamp(coef_1, max=delta)
    loss = -torch.min(coef_1 * batch.advantages, coef_2 * batch.advantages)
    if cispo is not None:
        loss = -torch.clamp(coef_1, max=cispo).detach() * batch.advantages * logprobs
    if is_cap is not None:
        is_ratio = torch.exp(batch.old - batch.sampler)
        if is_floor is None:
            loss = loss * torch.clamp(is_ratio, max=is_cap)
        else:
            loss = loss * is_ratio.masked_fill((is_ratio > is_cap) | (is_ratio < is_floor), 0.0)
    if beta:
        kl = torch.exp(batch.ref - logprobs) - (batch.ref - logprobs) - 1
        loss = loss + beta * kl * (torch.exp(logprobs - batch.old) if unbiased else 1.0)
    return REDUCTIONS[reduction](loss, batch.mask)


def verl_dual_clip(batch: Batch, logprobs: Tensor, reduction: str) -> Tensor:
    ratio = torch.exp(torch.clamp(logprobs - batch.old, -20.0, 20.0))
    losses = -batch.advantages * ratio
    clipped = torch.maximum(losses, -batch.advantages * torch.clamp(ratio, 1 - 0.2, 1 + 0.28))
    bounded = torch.min(-batch.advantages * 3.0, clipped)
    return REDUCTIONS[reduction](torch.where(batch.advantages < 0, bounded, clipped), batch.mask)


def verl_gspo(batch: Batch, logprobs: Tensor, reduction: str) -> Tensor:
    of_sequence = ((logprobs - batch.old) * batch.mask).sum(-1) / batch.mask.sum(-1)
    ratio = torch.exp(logprobs - logprobs.detach() + of_sequence.detach()[:, None])
    losses = torch.maximum(-batch.advantages * ratio, -batch.advantages * torch.clamp(ratio, 1 - 0.1, 1 + 0.1))
    return REDUCTIONS[reduction](losses, batch.mask)


CLIP_HIGHER = {"epsilon": 0.2, "epsilon_high": 0.28}
UNBIASED = {"beta": 0.1, "kl_estimator": "k3_unbiased"}
CASES = {
    "clip": ({}, None, trl),
    "clip higher": (CLIP_HIGHER, None, lambda *given: trl(*given, high=0.28)),
    "delta": ({"dual_clip": 1.5}, None, lambda *given: trl(*given, delta=1.5)),
    "dual clip": ({"dual_clip": 3.0, **CLIP_HIGHER}, None, verl_dual_clip),
    "sequence": (
        {"level": "sequence", "epsilon": 0.1},
        None,
        lambda *given: trl(*given, low=0.1, high=0.1, sequence=True),
    ),
    "cispo": ({"surrogate": "cispo", "epsilon_high": 0.5}, None, lambda *given: trl(*given, cispo=1.5)),
    "kl": ({"beta": 0.1}, None, lambda *given: trl(*given, beta=0.1)),
    "unbiased kl": (UNBIASED, None, lambda *given: trl(*given, beta=0.1, unbiased=True)),
    "truncated": ({}, {"method": "token_truncate", "cap": 1.2}, lambda *given: trl(*given, is_cap=1.2)),
    "icepop": (
        {},
        {"method": "token_mask", "cap": 1.3, "floor": 0.7},
        lambda *given: trl(*given, is_cap=1.3, is_floor=0.7),
    ),
}


def assert_same(batch: Batch, ours_loss: Callable[[Tensor], Tensor], peer_loss: Callable[[Tensor], Tensor]) -> None:
    results = []
    for objective in (ours_loss, peer_loss):
        logprobs = batch.new.clone().requires_grad_()
        loss = objective(logprobs)
        loss.backward()
        results.append((loss.detach(), logprobs.grad))
    (loss, gradient), (expected_loss, expected) = results
    assert expected.any()
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6, abs=1e-7)
    assert torch.linalg.norm(gradient - expected) <= 1e-6 * torch.linalg.norm(expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_an_objective_has_the_loss_and_gradient_of_a_peer(name, reduction, seed):
    switches, correction, peer = CASES[name]
    batch = Batch(seed, drift=0.6)
    assert_same(
        batch,
        lambda logprobs: ours(batch, logprobs, reduction, correction, **switches),
        lambda logprobs: peer(batch, logprobs, reduction),
    )


@pytest.mark.parametrize("seed", range(3))
def test_gspo_has_the_gradient_of_verl(seed):
    # verl uses the value of the sequence's ratio, and each token's own gradient.
    batch = Batch(seed, drift=0.2)
    assert_same(
        batch,
        lambda logprobs: ours(batch, logprobs, "sequence_mean", level="sequence", epsilon=0.1),
        lambda logprobs: verl_gspo(batch, logprobs, "sequence_mean"),
    )


def trl_advantages(rewards: Tensor, scale: str) -> Tensor:
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    std = {"group_std": rewards.std(dim=1, keepdim=True), "raw_batch_std": rewards.std(), "none": torch.ones(())}[scale]
    return centred / (std + (1e-4 if scale != "none" else 0.0))


@pytest.mark.parametrize("scale", ["group_std", "raw_batch_std", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_advantages_match_trls_scale_rewards(scale, seed):
    rewards = Batch(seed, 0.0).rewards
    found = group_advantages(rewards, scale=scale, std_ddof=1, eps=1e-4)
    torch.testing.assert_close(found, trl_advantages(rewards, scale), rtol=1e-9, atol=1e-12)


def token_stage(batch: Batch, advantages_B: list[Tensor], ddof: int) -> Tensor:
    white = whitened(advantages_B, batch.lengths.tolist(), [True] * B, std_ddof=ddof, eps=0.0)
    rows = [values.expand(length) for values, length in zip(white, batch.lengths.tolist(), strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def verl_whitened(values: Tensor, mask: Tensor) -> Tensor:
    mean = (values * mask).sum() / mask.sum()
    variance = ((values - mean) ** 2 * mask).sum() / mask.sum() * mask.sum() / (mask.sum() - 1)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def openrlhf_normalised(values: Tensor, mask: Tensor) -> Tensor:
    mean = (values * mask).sum() / mask.sum()
    variance = ((values - mean).pow(2) * mask).sum() / mask.sum()
    return (values - mean) * variance.clamp(min=1e-8).rsqrt() * mask


@pytest.mark.parametrize(("ddof", "normalised"), [(1, verl_whitened), (0, openrlhf_normalised)])
@pytest.mark.parametrize("seed", range(3))
def test_reinforce_pp_matches_the_returns_of_verl_and_openrlhf(ddof, normalised, seed):
    batch = Batch(seed, 0.0)
    # Each token's reward is -0.05 * KL; the last token also gets the response's reward. Sum them from the end.
    token_rewards = -0.05 * (batch.old - batch.ref) * batch.mask
    token_rewards[torch.arange(B), batch.lengths - 1] += batch.rewards.flatten()
    returns, running = torch.zeros(B, T, dtype=torch.float64), torch.zeros(B, dtype=torch.float64)
    for t in reversed(range(T)):
        running = (token_rewards[:, t] + running) * batch.mask[:, t]
        returns[:, t] = running
    advantages = group_advantages(batch.rewards, baseline="none", scale="none").flatten()
    kl = kl_divergence(batch.old, batch.ref, estimator="k1")
    advantages_B = [less_kl_to_go(a, k[:n], beta=0.05) for a, k, n in zip(advantages, kl, batch.lengths, strict=True)]
    expected = normalised(returns, batch.mask)[:, : batch.lengths.max()]
    torch.testing.assert_close(token_stage(batch, advantages_B, ddof), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("ddof", "normalised"), [(1, verl_whitened), (0, openrlhf_normalised)])
@pytest.mark.parametrize("seed", range(3))
def test_reinforce_pp_baseline_matches_the_advantages_of_verl_and_openrlhf(ddof, normalised, seed):
    batch = Batch(seed, 0.0)
    tiled = (batch.rewards - batch.rewards.mean(-1, keepdim=True)).view(B, 1).tile(1, T)
    advantages_B = list(group_advantages(batch.rewards, baseline="group_mean", scale="none").flatten())
    expected = normalised(tiled, batch.mask)[:, : batch.lengths.max()]
    torch.testing.assert_close(token_stage(batch, advantages_B, ddof), expected, rtol=1e-7, atol=1e-9)
