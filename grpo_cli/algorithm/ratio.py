"""The importance ratio: how far the policy has moved from the one that sampled."""

from typing import assert_never

from torch import Tensor

from grpo_cli.choices import RatioLevel

# B sequences, T tokens

# Larger ratios are useless and soon inf. TRL, verl and OpenRLHF use the same bound.
MAX_LOG_RATIO = 20.0


def clamped(log_ratio: Tensor) -> Tensor:
    """The log ratio clamped to +-20, without gradient outside, so that the ratio is never inf.

    >>> clamped(Tensor([-800.0, 0.5, 800.0]))
    tensor([-20.0000,   0.5000,  20.0000])
    """
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def importance_ratio(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, mask_BT: Tensor, *, level: RatioLevel = RatioLevel.token
) -> Tensor:
    """The (B, T) ratio of the policy's probabilities to the old policy's, with its gradient.

    - `token`: the ratio of each token (PPO, arXiv:1707.06347); 1 if the mask is 0
    - `sequence`: the geometric mean over the response, for all its tokens (GSPO, arXiv:2507.18071, eq. 7)

    The log ratio is clamped to +-20.
    """
    log_ratio_BT = (logprobs_BT - old_logprobs_BT).masked_fill(mask_BT == 0, 0.0)
    match level:
        case RatioLevel.token:
            return clamped(log_ratio_BT).exp()
        case RatioLevel.sequence:
            lengths_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1)
            return clamped(log_ratio_BT.sum(1, keepdim=True) / lengths_B1).exp().expand_as(log_ratio_BT)
        case _:
            assert_never(level)
