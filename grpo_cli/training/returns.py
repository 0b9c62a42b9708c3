"""The advantages of tokens from a critic's values, and how good these values are.

P prompts of this rank, G completions a prompt, T tokens of a completion, N tokens of several.
"""

from collections.abc import Callable, Sequence
from math import fsum, nan
from typing import Any

import torch
from torch import Tensor

from grpo_cli.algorithm.value import generalised_advantages
from grpo_cli.choices import KLPlacement
from grpo_cli.config.algorithm import AlgorithmConfig

PerToken = Sequence[Sequence[Tensor]]  # (T,) of each completion of each group


def critic_advantages(
    rewards_PG: Tensor, values: PerToken, kl: PerToken | None, algorithm: AlgorithmConfig
) -> list[list[Tensor]]:
    """The (T,) advantages of each group's responses before whitening; with the values added, they are the returns.

    A response's reward belongs to its last token. With kl.placement=reward_to_go, the KL of a token is a negative
    reward of this token.
    """
    if kl is None or algorithm.kl.placement != KLPlacement.reward_to_go:
        kl = [[torch.zeros_like(values_T) for values_T in group] for group in values]
    settings = algorithm.advantage
    return [
        [
            generalised_advantages(
                token_rewards(reward, kl_T, beta=algorithm.beta),
                values_T,
                gamma=settings.gamma,
                gae_lambda=settings.gae_lambda,
            )
            for reward, values_T, kl_T in zip(*group, strict=True)
        ]
        for group in zip(rewards_PG, values, kl, strict=True)
    ]


def token_rewards(reward: Tensor, kl_T: Tensor, *, beta: float) -> Tensor:
    """The (T,) float64 rewards: -beta * KL of each token, and for the last also the response's reward.

    From InstructGPT (arXiv:2203.02155, eq. 2), where the KL is that of the policy that sampled.

    >>> token_rewards(torch.tensor(1.0), torch.tensor([0.5, 0.0, 1.0]), beta=0.5)
    tensor([-0.2500, -0.0000,  0.5000], dtype=torch.float64)
    """
    rewards_T = -beta * kl_T.double()
    rewards_T[-1:] += reward
    return rewards_T


def explained_variance(
    values_N: Tensor, returns_N: Tensor, gather: Callable[[Any], list[Any]] = lambda value: [value]
) -> float:
    """1 - variance(returns - values) / variance(returns) over all ranks; nan if all returns are equal.

    1 for perfect values, 0 for a constant, negative for worse. `gather` returns the values of all ranks, on each rank.
    """
    returns_N = returns_N.double()
    sums = [sum_ for v in (returns_N - values_N, returns_N) for sum_ in (v.sum().item(), v.square().sum().item())]
    count, *totals = map(fsum, zip(*gather((len(returns_N), *sums)), strict=True))
    error, error_squares, total, squares = (value / max(count, 1) for value in totals)
    variance = squares - total**2
    return 1 - (error_squares - error**2) / variance if variance > 1e-12 * squares else nan
