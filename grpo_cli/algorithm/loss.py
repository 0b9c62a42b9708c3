"""The objective: a plain sum of weighted token terms, to which the losses of its parts add up."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from grpo_cli.algorithm.kl import KLEstimator, kl_divergence
from grpo_cli.algorithm.ratio import RatioLevel, importance_ratio

# B sequences, T tokens
Surrogate = Literal["clip", "cispo", "none"]


class LossStats(NamedTuple):
    """Sums over tokens, without gradient: add them over micro-batches and ranks, divide last."""

    num_tokens: Tensor
    clip_low: Tensor  # tokens with a ratio below the bound that holds for their advantage
    clip_high: Tensor  # tokens with a ratio above it
    kl_ref: Tensor  # k3 of the reference, whatever the loss uses; 0 where there is none


def policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    weights_B: Tensor,
    mask_BT: Tensor,
    *,
    surrogate: Surrogate = "clip",
    level: RatioLevel = "token",
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    dual_clip: float | None = None,
    beta: float = 0.0,
    ref_logprobs_BT: Tensor | None = None,
    kl_estimator: KLEstimator = "k3",
    correction_BT: Tensor | None = None,
) -> tuple[Tensor, LossStats]:
    """The scalar to minimise, `-sum of weight * (correction * surrogate - beta * KL)` over the mask's tokens.

    The surrogate of a token with ratio r, advantage A and log-probability l:

    - `clip`: min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) (PPO, arXiv:1707.06347). `epsilon_high` is
      `epsilon` unless given (DAPO, arXiv:2503.14476). With `dual_clip`, no less than dual_clip A where A < 0
      (arXiv:1912.09729)
    - `cispo`: min(r, 1 + epsilon_high) A l, with no gradient through the minimum (MiniMax-M1, arXiv:2506.13585, eq. 4
      and 5; like the paper, without a lower bound)
    - `none`: A l (REINFORCE)

    The ratio in an unbiased KL is the token's, whatever `level` is. `weights_B` come from `token_weights`,
    `correction_BT` from `sampler_correction`. What stands where the mask is 0 never matters, be it inf or NaN, and a
    row may be all padding.
    """
    padding_BT = mask_BT == 0
    # In value and gradient: a weight of 0 would not do, since 0 * inf is NaN.
    logprobs = logprobs_BT.masked_fill(padding_BT, 0.0)
    ratio = importance_ratio(logprobs, old_logprobs_BT, mask_BT, level=level)
    advantages = advantages_BT.masked_fill(padding_BT, 0.0)
    low, high = 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)
    too_low = too_high = torch.zeros_like(padding_BT)
    match surrogate:
        case "clip":
            terms = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
            too_low = (ratio < low) & (advantages < 0)
            too_high = (ratio > high) & (advantages > 0)
            if dual_clip is not None:
                terms = torch.where(advantages < 0, terms.maximum(dual_clip * advantages), terms)
                too_high = too_high | ((ratio > dual_clip) & (advantages < 0))
        case "cispo":
            terms = ratio.clamp(max=high).detach() * advantages * logprobs
            too_high = (ratio > high) & (advantages != 0)
        case "none":
            terms = advantages * logprobs
        case _:
            raise ValueError(f"unknown surrogate {surrogate!r}")
    if correction_BT is not None:
        terms = correction_BT.masked_fill(padding_BT, 0.0) * terms
    kl_ref = logprobs.new_zeros(())
    if ref_logprobs_BT is not None:
        ref_logprobs = ref_logprobs_BT.masked_fill(padding_BT, 0.0)
        kl_ref = kl_divergence(logprobs.detach(), ref_logprobs, estimator="k3").sum()
        if beta:
            of_tokens = importance_ratio(logprobs, old_logprobs_BT, mask_BT, level="token")
            terms = terms - beta * kl_divergence(logprobs, ref_logprobs, estimator=kl_estimator, ratio_BT=of_tokens)
    loss = -(weights_B[:, None] * terms).masked_fill(padding_BT, 0.0).sum()
    counts = (~padding_BT, too_low & ~padding_BT, too_high & ~padding_BT)
    return loss, LossStats(*(count.sum().to(loss.dtype) for count in counts), kl_ref)
