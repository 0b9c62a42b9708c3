"""Estimates of the KL divergence from the reference policy, token by token."""

from typing import Literal

from torch import Tensor

from grpo_cli.algorithm.ratio import clamped

# B sequences, T tokens
KLEstimator = Literal["k1", "k2", "k3", "k3_unbiased"]


def kl_divergence(
    logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor,
    *,
    estimator: KLEstimator = "k3",
    ratio_BT: Tensor | None = None,
) -> Tensor:
    """The (B, T) estimates of KL(policy || reference), with x = log policy - log reference of sampled tokens.

    - `k1`: x, unbiased, of either sign
    - `k2`: x^2 / 2, biased, with the gradient of the KL
    - `k3`: exp(-x) - 1 + x, unbiased, never negative; GRPO's penalty (arXiv:2402.03300, eq. 4)
    - `k3_unbiased`: ratio * k3, with the gradient of both: the ratio of the policy to the one that sampled, which
      k3 lacks, makes value and gradient those of the KL (DeepSeek-V3.2, arXiv:2512.02556). `ratio_BT` is each
      token's; without one, the policy is the one that sampled

    In k3, x is clamped at +-20. The values are Schulman's (joschu.net/blog/kl-approx.html). As a loss, x itself would
    have a mean gradient of zero, so `k1` has that of `k2`, to which k1 in the reward is equivalent (arXiv:2510.01555).
    """
    x = logprobs_BT - ref_logprobs_BT
    match estimator:
        case "k1":
            k2 = x.square() / 2
            return x.detach() + (k2 - k2.detach())
        case "k2":
            return x.square() / 2
        case "k3":
            return _k3(x)
        case "k3_unbiased":
            return _k3(x) if ratio_BT is None else ratio_BT * _k3(x)
        case _:
            raise ValueError(f"unknown KL estimator {estimator!r}")


def _k3(x: Tensor) -> Tensor:
    x = clamped(x)
    # expm1 keeps what exp(-x) - 1 would round away where the policies are close.
    return (-x).expm1() + x
