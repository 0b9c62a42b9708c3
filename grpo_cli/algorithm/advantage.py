"""How much better a response did than was to be expected."""

from collections.abc import Callable, Sequence
from itertools import chain
from math import fsum, inf, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

# P prompts, G completions a prompt, B responses, T tokens of one
GROUP, BATCH = 1, (0, 1)

Baseline = Literal["group_mean", "leave_one_out", "batch_mean", "none"]
AdvantageScale = Literal["group_std", "batch_std", "raw_batch_std", "none"]


def group_advantages(
    rewards_PG: Tensor,
    *,
    baseline: Baseline = "group_mean",
    scale: AdvantageScale = "group_std",
    std_ddof: int = 0,
    eps: float = 1e-6,
) -> Tensor:
    """The (P, G) advantages `(reward - baseline) / (std + eps)` of a rollout's rewards, those of all ranks.

    - `baseline`: the mean of the prompt's group (GRPO, arXiv:2402.03300), the mean of the others in the group
      (RLOO, arXiv:2402.14740; G >= 2), the mean of the batch, or zero
    - `scale`: the std of the centred rewards in the group or in the batch, or that of the rewards as they are in the
      batch (`raw_batch_std`: Lite-PPO, arXiv:2508.08221), with `std_ddof` 0 (population) or 1 (sample); `none`
      leaves them centred (Dr. GRPO, arXiv:2503.20783)

    Where all rewards that are centred or scaled together agree (max == min), the advantages are exact zeros.
    """
    group_size = rewards_PG.shape[GROUP]
    match baseline:
        case "group_mean":
            advantages = _centred(rewards_PG, GROUP)
        case "leave_one_out":
            advantages = _centred(rewards_PG, GROUP) * (group_size / (group_size - 1))
        case "batch_mean":
            advantages = _centred(rewards_PG, BATCH)
        case "none":
            advantages = rewards_PG
        case _:
            raise ValueError(f"unknown baseline {baseline!r}")
    match scale:
        case "group_std":
            return _divided(advantages, _std(advantages, GROUP, std_ddof), eps)
        case "batch_std":
            return _divided(advantages, _std(advantages, BATCH, std_ddof), eps)
        case "raw_batch_std":
            return _divided(advantages, _std(rewards_PG, BATCH, std_ddof), eps)
        case "none":
            return advantages
        case _:
            raise ValueError(f"unknown scale {scale!r}")


def less_kl_to_go(advantage: Tensor, kl_T: Tensor, *, beta: float) -> Tensor:
    """The (T,) advantages of a response's tokens, `advantage - beta * (KL of the token and of all that follow)`: what
    the KL costs as a reward of each token, undiscounted (REINFORCE++, arXiv:2501.03262, eq. 8).

    >>> less_kl_to_go(torch.tensor(1.0), torch.tensor([0.5, 0.25, 1.0]), beta=0.5)
    tensor([0.1250, 0.3750, 0.5000])
    """
    return advantage - beta * kl_T.to(advantage.dtype).flip(0).cumsum(0).flip(0)


def whitened(
    advantages_B: Sequence[Tensor],
    lengths_B: Sequence[int],
    counted_B: Sequence[bool],
    *,
    std_ddof: int = 0,
    eps: float = 1e-6,
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> list[Tensor]:
    """`(advantage - mean) / (std + eps)` over all tokens of the responses that are counted, those of all ranks
    (REINFORCE++, arXiv:2501.03262, eq. 10).

    An advantage is that of all its response's tokens, (), or of each, (T,), and so is what comes back. `gather` gives
    the values of all ranks, on each of them. The sums are exact: they do not depend on which rank has a response.
    Where all tokens agree (max == min), the advantages are exact zeros.
    """
    tokens = [
        advantage.double().expand(length)
        for advantage, length, is_counted in zip(advantages_B, lengths_B, counted_B, strict=True)
        if is_counted and length
    ]
    num_tokens = sum(gather(sum(map(len, tokens))))
    least = min(gather(min((values.min().item() for values in tokens), default=inf)))
    # From the least one on: the mean of 16 times 0.1 is not quite 0.1; the mean of 16 zeros is 0.
    mean = _exact_sum([values - least for values in tokens], gather) / max(num_tokens, 1)
    squares = _exact_sum([(values - least - mean).square() for values in tokens], gather)
    std = sqrt(squares / max(num_tokens - std_ddof, 1))
    if std == 0:
        return [torch.zeros_like(advantage) for advantage in advantages_B]
    return [(advantage - least - mean) / (std + eps) for advantage in advantages_B]


def _exact_sum(values: Sequence[Tensor], gather: Callable[[Any], list[Any]]) -> float:
    """Of all ranks' values: each response's sum is the same on any rank, and fsum does not round."""
    return fsum(chain.from_iterable(gather([of_response.sum().item() for of_response in values])))


def _centred(values: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    # The mean of 16 times 0.1 is not quite 0.1; the mean of 16 zeros is 0.
    above_least = values - values.amin(dims, keepdim=True)
    return above_least - above_least.mean(dims, keepdim=True)


def _std(values: Tensor, dims: int | tuple[int, ...], ddof: int) -> Tensor:
    return _centred(values, dims).std(dims, correction=ddof, keepdim=True)


def _divided(values: Tensor, std: Tensor, eps: float) -> Tensor:
    return (values / (std + eps)).where(std > 0, 0.0)
