"""How far the policy has moved from the one that sampled."""

from typing import Literal

from torch import Tensor

# B sequences, T tokens
RatioLevel = Literal["token", "sequence"]

# Beyond it the exponential of a log ratio is of no use and soon inf; TRL, verl and OpenRLHF have the same bound.
MAX_LOG_RATIO = 20.0


def clamped(log_ratio: Tensor) -> Tensor:
    """The log ratio within +-20, without gradient beyond: a ratio from 2e-9 to 5e8, never inf.

    >>> clamped(Tensor([-800.0, 0.5, 800.0]))
    tensor([-20.0000,   0.5000,  20.0000])
    """
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def importance_ratio(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, mask_BT: Tensor, *, level: RatioLevel = "token"
) -> Tensor:
    """The (B, T) ratio of the policy's probabilities to the old policy's, with its gradient.

    - `token`: of each token (PPO, arXiv:1707.06347); 1 where the mask is 0
    - `sequence`: the geometric mean over the response, all along its row (GSPO, arXiv:2507.18071, eq. 7)

    Its logarithm is clamped at +-20.
    """
    log_ratio_BT = (logprobs_BT - old_logprobs_BT).masked_fill(mask_BT == 0, 0.0)
    match level:
        case "token":
            return clamped(log_ratio_BT).exp()
        case "sequence":
            lengths_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1)
            return clamped(log_ratio_BT.sum(1, keepdim=True) / lengths_B1).exp().expand_as(log_ratio_BT)
        case _:
            raise ValueError(f"unknown ratio level {level!r}")
