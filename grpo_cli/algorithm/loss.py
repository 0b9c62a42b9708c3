"""The objective: a sum of weighted token terms, so the losses of micro-batches and ranks can be added."""

from collections.abc import Callable
from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.algorithm.ratio import importance_ratio
from grpo_cli.choices import KLEstimator, RatioLevel, Surrogate

# B sequences, T tokens


class LossStats(NamedTuple):
    """Sums over tokens, without gradient. Add them over micro-batches and ranks, and divide last."""

    num_tokens: Tensor
    clip_low: Tensor  # tokens with a ratio below the lower bound, if it applies to their advantage
    clip_high: Tensor  # tokens with a ratio above the upper bound, likewise
    kl_ref: Tensor  # k3 to the reference, whatever estimator the loss uses; 0 without a reference


def policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    weights: Tensor,
    mask_BT: Tensor,
    *,
    surrogate: Surrogate | Callable[..., Tensor] = Surrogate.clip,
    level: RatioLevel = RatioLevel.token,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    dual_clip: float | None = None,
    beta: float = 0.0,
    ref_logprobs_BT: Tensor | None = None,
    kl_estimator: KLEstimator = KLEstimator.k3,
    correction_BT: Tensor | None = None,
    sampler_logprobs_BT: Tensor | None = None,
) -> tuple[Tensor, LossStats]:
    """The loss to minimise, `-sum of weight * (correction * surrogate - beta * KL)` over the tokens in the mask.

    The surrogate of a token with ratio r, advantage A and log-probability l:

    - `clip`: min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) (PPO, arXiv:1707.06347). `epsilon_high`
      defaults to `epsilon` (DAPO, arXiv:2503.14476). With `dual_clip`, at least dual_clip * A if A < 0
      (arXiv:1912.09729)
    - `cispo`: min(r, 1 + epsilon_high) A l, without gradient through the minimum (MiniMax-M1, arXiv:2506.13585, eq. 4
      and 5; without a lower bound, as in the paper)
    - `none`: A l (REINFORCE)
    - a function: the (B, T) terms that it returns. It is called with keywords, with 0 in padding: `logprobs_BT`,
      `old_logprobs_BT`, `ref_logprobs_BT` and `sampler_logprobs_BT` (each may be None), `advantages_BT`, `mask_BT`

    The ratio in an unbiased KL is per token, whatever `level` is. `weights`, (B,) or (B, T), come from `token_weights`,
    and `correction_BT` from `sampler_correction`. Values at positions where the mask is 0 never matter, not even inf or
    NaN, and a row may be all padding.
    """
    padding_BT = mask_BT == 0
    # This removes padding from value and gradient. A weight of 0 would not: 0 * inf is NaN.
    logprobs = logprobs_BT.masked_fill(padding_BT, 0.0)
    ratio = importance_ratio(logprobs, old_logprobs_BT, mask_BT, level=level)
    advantages = advantages_BT.masked_fill(padding_BT, 0.0)
    low, high = 1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high)
    too_low = too_high = torch.zeros_like(padding_BT)
    match surrogate:
        case Surrogate.clip:
            terms = torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
            too_low = (ratio < low) & (advantages < 0)
            too_high = (ratio > high) & (advantages > 0)
            if dual_clip is not None:
                terms = torch.where(advantages < 0, terms.maximum(dual_clip * advantages), terms)
                too_high = too_high | ((ratio > dual_clip) & (advantages < 0))
        case Surrogate.cispo:
            terms = ratio.clamp(max=high).detach() * advantages * logprobs
            too_high = (ratio > high) & (advantages != 0)
        case Surrogate.none:
            terms = advantages * logprobs
        case _ if callable(surrogate):
            terms = surrogate(
                logprobs_BT=logprobs,
                old_logprobs_BT=_filled(old_logprobs_BT, padding_BT),
                ref_logprobs_BT=_filled(ref_logprobs_BT, padding_BT),
                sampler_logprobs_BT=_filled(sampler_logprobs_BT, padding_BT),
                advantages_BT=advantages,
                mask_BT=mask_BT,
            )
        case _:
            assert_never(surrogate)
    if correction_BT is not None:
        terms = correction_BT.masked_fill(padding_BT, 0.0) * terms
    kl_ref = logprobs.new_zeros(())
    if ref_logprobs_BT is not None:
        ref_logprobs = ref_logprobs_BT.masked_fill(padding_BT, 0.0)
        kl_ref = kl_divergence(logprobs.detach(), ref_logprobs, estimator=KLEstimator.k3).sum()
        if beta:
            token_ratio_BT = importance_ratio(logprobs, old_logprobs_BT, mask_BT, level=RatioLevel.token)
            terms = terms - beta * kl_divergence(
                logprobs, ref_logprobs, estimator=kl_estimator, ratio_BT=token_ratio_BT
            )
    weights_BT = weights[:, None] if weights.dim() == 1 else weights
    loss = -(weights_BT * terms).masked_fill(padding_BT, 0.0).sum()
    counted = (~padding_BT, too_low & ~padding_BT, too_high & ~padding_BT)
    num_tokens, clip_low, clip_high = (tokens.sum().to(loss.dtype) for tokens in counted)
    return loss, LossStats(num_tokens, clip_low, clip_high, kl_ref)


def _filled(values_BT: Tensor | None, padding_BT: Tensor) -> Tensor | None:
    return None if values_BT is None else values_BT.masked_fill(padding_BT, 0.0)
