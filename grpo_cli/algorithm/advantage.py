"""Advantages: how much better a response is than expected."""

from collections.abc import Callable, Sequence
from itertools import chain
from math import fsum, inf, sqrt
from typing import Any, assert_never

import torch
from torch import Tensor

from grpo_cli.choices import AdvantageScale, Baseline

# P prompts, G completions a prompt, B responses, T tokens of one
GROUP, BATCH = 1, (0, 1)


def group_advantages(
    rewards_PG: Tensor,
    *,
    baseline: Baseline = Baseline.group_mean,
    scale: AdvantageScale = AdvantageScale.group_std,
    std_ddof: int = 0,
    eps: float = 1e-6,
) -> Tensor:
    """The (P, G) advantages `(reward - baseline) / (std + eps)` of a rollout's rewards on all ranks.

    - `baseline`: the mean of the prompt's group (GRPO, arXiv:2402.03300), the mean of the other responses in the group
      (RLOO, arXiv:2402.14740; G >= 2), the mean of the batch, or zero
    - `scale`: the std of the centred rewards in the group or in the batch, or the std of the raw rewards in the batch
      (`raw_batch_std`: Lite-PPO, arXiv:2508.08221), with `std_ddof` 0 (population) or 1 (sample); `none` does not
      divide (Dr. GRPO, arXiv:2503.20783)

    If all rewards that are centred or scaled together are equal, the advantages are exactly 0.
    """
    group_size = rewards_PG.shape[GROUP]
    match baseline:
        case Baseline.group_mean:
            advantages = _centred(rewards_PG, GROUP)
        case Baseline.leave_one_out:
            advantages = _centred(rewards_PG, GROUP) * (group_size / (group_size - 1))
        case Baseline.batch_mean:
            advantages = _centred(rewards_PG, BATCH)
        case Baseline.none:
            advantages = rewards_PG
        case _:
            assert_never(baseline)
    match scale:
        case AdvantageScale.group_std:
            return _divided(advantages, _std(advantages, GROUP, std_ddof), eps)
        case AdvantageScale.batch_std:
            return _divided(advantages, _std(advantages, BATCH, std_ddof), eps)
        case AdvantageScale.raw_batch_std:
            return _divided(advantages, _std(rewards_PG, BATCH, std_ddof), eps)
        case AdvantageScale.none:
            return advantages
        case _:
            assert_never(scale)


def less_kl_to_go(advantage: Tensor, kl_T: Tensor, *, beta: float) -> Tensor:
    """The (T,) advantages of a response's tokens: `advantage - beta * (KL of the token and of all later tokens)`.

    This is the KL as a negative reward of each token, without discount (REINFORCE++, arXiv:2501.03262, eq. 8).

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
    """`(advantage - mean) / (std + eps)`, with mean and std over all tokens of the counted responses of all ranks.

    From REINFORCE++ (arXiv:2501.03262, eq. 10). An advantage is one value for the whole response, (), or one for each
    token, (T,); the result has the same shape. `gather` returns the values of all ranks, on each rank. The sums are
    exact: they do not depend on which rank has a response. If all tokens have the same advantage, the result is
    exactly 0.
    """
    tokens = [
        advantage.double().expand(length)
        for advantage, length, is_counted in zip(advantages_B, lengths_B, counted_B, strict=True)
        if is_counted and length
    ]
    num_tokens = sum(gather(sum(map(len, tokens))))
    smallest = min(gather(min((values.min().item() for values in tokens), default=inf)))
    # Subtract the smallest first: the mean of 16 times 0.1 is not exactly 0.1, but the mean of 16 zeros is 0.
    mean = _exact_sum([values - smallest for values in tokens], gather) / max(num_tokens, 1)
    squares = _exact_sum([(values - smallest - mean).square() for values in tokens], gather)
    std = sqrt(squares / max(num_tokens - std_ddof, 1))
    if std == 0:
        return [torch.zeros_like(advantage) for advantage in advantages_B]
    return [(advantage - smallest - mean) / (std + eps) for advantage in advantages_B]


def _exact_sum(values: Sequence[Tensor], gather: Callable[[Any], list[Any]]) -> float:
    """The sum of all ranks' values: each response's sum is the same on any rank, and fsum does not round."""
    return fsum(chain.from_iterable(gather([of_response.sum().item() for of_response in values])))


def _centred(values: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    # Subtract the smallest first: the mean of 16 times 0.1 is not exactly 0.1, but the mean of 16 zeros is 0.
    above_smallest = values - values.amin(dims, keepdim=True)
    return above_smallest - above_smallest.mean(dims, keepdim=True)


def _std(values: Tensor, dims: int | tuple[int, ...], ddof: int) -> Tensor:
    return _centred(values, dims).std(dims, correction=ddof, keepdim=True)


def _divided(values: Tensor, std: Tensor, eps: float) -> Tensor:
    return (values / (std + eps)).where(std > 0, 0.0)
