"""The difference between the sampler's and the trainer's log-probabilities of one policy, and its correction."""

from typing import NamedTuple

from torch import Tensor

from grpo_cli.algorithm.ratio import clamped
from grpo_cli.choices import SamplerCorrection

# B sequences, T tokens


class MismatchSums(NamedTuple):
    """Sums over tokens. Add them over micro-batches and ranks, and divide last."""

    num_tokens: Tensor
    kl: Tensor  # k3 of KL(sampler || trainer)
    logprob_diff: Tensor  # |difference of log-probabilities|
    prob_diff: Tensor  # |difference of probabilities|
    ratio: Tensor  # the trainer's probability divided by the sampler's, before any truncation


class MismatchMaxima(NamedTuple):
    """Maxima over tokens. Combine them with the maximum. Zero if there are no tokens."""

    logprob_diff: Tensor
    prob_diff: Tensor
    ratio: Tensor


def sampler_mismatch(
    trainer_logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor
) -> tuple[MismatchSums, MismatchMaxima]:
    """How far both differ on the sampled tokens, in float64 and without gradient.

    For ratio and KL, the log ratio is clamped to +-20.
    """
    present_BT = mask_BT != 0
    trainer = trainer_logprobs_BT.detach()[present_BT].double()
    sampler = sampler_logprobs_BT[present_BT].double()
    log_ratio = trainer - sampler
    ratio = clamped(log_ratio).exp()
    logprob_diff = log_ratio.abs()
    prob_diff = (trainer.exp() - sampler.exp()).abs()
    kl = clamped(log_ratio).expm1() - clamped(log_ratio)
    sums = (value.sum() for value in (present_BT.double(), kl, logprob_diff, prob_diff, ratio))
    maxima = (_maximum(value) for value in (logprob_diff, prob_diff, ratio))
    return MismatchSums(*sums), MismatchMaxima(*maxima)


def sampler_correction(
    trainer_logprobs_BT: Tensor,
    sampler_logprobs_BT: Tensor,
    mask_BT: Tensor,
    *,
    method: SamplerCorrection,
    cap: float,
    floor: float = 0.0,
) -> Tensor | None:
    """The (B, T) importance weights from the sampler to the trainer before its update; None for `none`.

    - `token_truncate`: min(ratio, cap) of each token (TIS: Yao et al. 2025, "Your efficient RL framework
      secretly brings you off-policy RL training")
    - `token_mask`: the ratio of each token, or 0 outside [floor, cap] (IcePop: Zhao et al. 2025, "Small leak can sink
      a great ship", with 0.5 and 5)
    - `sequence_mask`: the ratio of the whole response for all its tokens, or 0 if it exceeds the cap (MIS:
      Liu et al. 2025, "When speed kills stability")

    The log ratios are clamped to +-20.
    """
    log_ratio_BT = (trainer_logprobs_BT.detach() - sampler_logprobs_BT).masked_fill(mask_BT == 0, 0.0)
    match method:
        case SamplerCorrection.none:
            return None
        case SamplerCorrection.token_truncate:
            return clamped(log_ratio_BT).exp().clamp(max=cap)
        case SamplerCorrection.token_mask:
            ratio_BT = clamped(log_ratio_BT).exp()
            return ratio_BT.where((ratio_BT >= floor) & (ratio_BT <= cap), 0.0)
        case SamplerCorrection.sequence_mask:
            ratio_B1 = clamped(log_ratio_BT.sum(1, keepdim=True)).exp()
            return ratio_B1.where(ratio_B1 <= cap, 0.0).expand_as(log_ratio_BT)
        case _:
            raise AssertionError(f"{method} is not one of them: SamplerCorrectionConfig.method_in replaces auto")


def off_policy_mask(
    logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, *, max_kl: float
) -> Tensor:
    """The (B, T) mask: 0 for tokens with a negative advantage in a response far from the policy, otherwise 1.

    Far means that the mean of log sampler - log policy over the response is above `max_kl`. The policy is the one of
    this optimizer step, so the mean contains the earlier steps of the rollout and the difference between sampler and
    trainer (DeepSeek-V3.2, arXiv:2512.02556, section 3.1: off-policy sequence masking).
    """
    log_ratio_BT = (sampler_logprobs_BT - logprobs_BT).masked_fill(mask_BT == 0, 0.0)
    kl_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return ((advantages_BT >= 0) | (kl_B1 <= max_kl)).to(kl_B1.dtype)


def _maximum(values: Tensor) -> Tensor:
    return values.amax() if values.numel() else values.new_zeros(())
