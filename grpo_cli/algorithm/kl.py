"""Per-token estimates of the KL divergence from the reference policy."""

from typing import assert_never

from torch import Tensor

from grpo_cli.algorithm.ratio import clamped
from grpo_cli.choices import KLEstimator

# B sequences, T tokens


def kl_divergence(
    logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor,
    *,
    estimator: KLEstimator = KLEstimator.k3,
    ratio_BT: Tensor | None = None,
) -> Tensor:
    """The (B, T) estimates of KL(policy || reference), where x = log policy - log reference of the sampled tokens.

    - `k1`: x, unbiased, can be negative
    - `k2`: x^2 / 2, biased, with the gradient of the KL
    - `k3`: exp(-x) - 1 + x, unbiased, never negative; GRPO's penalty (arXiv:2402.03300, eq. 4)
    - `k3_unbiased`: ratio * k3, with a gradient through both factors. The ratio of the policy to the sampling policy,
      which k3 lacks, makes value and gradient those of the KL (DeepSeek-V3.2, arXiv:2512.02556). `ratio_BT` is the
      ratio of each token; None means that the policy is the sampling policy

    In k3, x is clamped to +-20. The estimates are from Schulman (joschu.net/blog/kl-approx.html). As a loss, x itself
    has an expected gradient of zero, so `k1` gets the gradient of `k2`, which is equivalent to k1 in the reward
    (arXiv:2510.01555).
    """
    x = logprobs_BT - ref_logprobs_BT
    match estimator:
        case KLEstimator.k1:
            k2 = x.square() / 2
            return x.detach() + (k2 - k2.detach())
        case KLEstimator.k2:
            return x.square() / 2
        case KLEstimator.k3:
            return _k3(x)
        case KLEstimator.k3_unbiased:
            return _k3(x) if ratio_BT is None else ratio_BT * _k3(x)
        case _:
            assert_never(estimator)


def _k3(x: Tensor) -> Tensor:
    x = clamped(x)
    # For close policies, expm1 keeps digits that exp(-x) - 1 rounds away.
    return (-x).expm1() + x
