"""Computes the advantages of a rollout's responses from their scores.

P prompts of this rank, G completions a prompt, T tokens of a completion.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_cli.algorithm.advantage import group_advantages, less_kl_to_go, whitened
from grpo_cli.choices import AdvantageReward, KLPlacement, Overlong, Select
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.metrics.metrics import Tally
from grpo_cli.ranks import gather, rank
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.own_functions import own_advantages
from grpo_cli.training.returns import PerToken, critic_advantages
from grpo_cli.types import Verdict


def rollout_advantages(
    rollout: Rollout,
    selected_PG: Tensor,
    kl: PerToken | None,
    algorithm: AlgorithmConfig,
    values: PerToken | None = None,
) -> list[list[Tensor]]:
    """The advantages of each group's responses; called on all ranks.

    An advantage is one value for the whole response, (), or one for each token, (T,). `kl` is each token's divergence
    from the reference, if it is part of the reward. It is subtracted from the response's reward, or from the advantages
    of its token and all earlier ones. `values` are those of the critic, if there is one. Whitening comes last.
    """
    rewards_PG = penalised_rewards(rollout, kl, algorithm)
    if values is not None:
        advantages_by_group = critic_advantages(rewards_PG, values, kl, algorithm)
    elif place := algorithm.functions.advantage:
        advantages_by_group = [list(of_group) for of_group in own_advantages(place, rewards_PG, rollout.groups)]
    else:
        advantages_by_group = [list(of_group) for of_group in advantages(rewards_PG, algorithm)]
    if values is None and kl is not None and algorithm.kl.placement == KLPlacement.reward_to_go:
        advantages_by_group = [
            [less_kl_to_go(advantage, kl_T, beta=algorithm.beta) for advantage, kl_T in zip(*pair, strict=True)]
            for pair in zip(advantages_by_group, kl, strict=True)
        ]
    if not algorithm.advantage.whiten:
        return advantages_by_group
    whitened_advantages = iter(
        whitened(
            [advantage for group in advantages_by_group for advantage in group],
            [len(completion.token_ids) for group in rollout.groups for completion in group.completions],
            selected_PG.flatten().tolist(),
            std_ddof=algorithm.advantage.std_ddof,
            eps=algorithm.advantage.eps,
            gather=gather,
        )
    )
    return [[next(whitened_advantages) for _ in group] for group in advantages_by_group]


def penalised_rewards(rollout: Rollout, kl: PerToken | None, algorithm: AlgorithmConfig) -> Tensor:
    """The (P, G) rewards, minus the KL of the whole response if it is subtracted from the reward."""
    rewards_PG = objective_rewards(rollout, algorithm)
    if kl is None or algorithm.kl.placement != KLPlacement.reward:
        return rewards_PG
    kl_PG = torch.tensor([[kl_T.sum().item() for kl_T in group] for group in kl], dtype=rewards_PG.dtype)
    return rewards_PG - algorithm.beta * kl_PG


def advantage_tally(advantages: Sequence[Sequence[Tensor]]) -> Tally:
    """`advantage/...` of this rank's responses; of a response whose tokens differ, the mean over its tokens."""
    tally = Tally()
    tally.spread("advantage", (advantage.mean().item() for group in advantages for advantage in group))
    return tally


def objective_rewards(rollout: Rollout, algorithm: AlgorithmConfig) -> Tensor:
    """The (P, G) rewards that the advantages are computed from, in float64.

    A response that no term applies to gets the mean of its group, which leaves the group's mean as it is.
    """
    reward_of = {
        AdvantageReward.total: lambda score: score.total,
        AdvantageReward.accuracy: lambda score: float(score.verdict is Verdict.correct),
        AdvantageReward.none: lambda score: 0.0,
    }[algorithm.advantage.reward]
    rewards_PG = torch.tensor([[reward_of(s) for s in g.scores] for g in rollout.groups], dtype=torch.float64)
    if algorithm.overlong == Overlong.zero_reward:
        rewards_PG = rewards_PG.masked_fill(_truncated(rollout), 0.0)
    means_P1 = rewards_PG.nanmean(dim=1, keepdim=True).nan_to_num(0.0)
    return torch.where(rewards_PG.isnan(), means_P1, rewards_PG)


def selected_responses(rollout: Rollout, algorithm: AlgorithmConfig) -> Tensor:
    """Which of the (P, G) responses the objective counts, as booleans."""
    truncated_PG = _truncated(rollout)
    correct_PG = torch.tensor([[score.verdict is Verdict.correct for score in g.scores] for g in rollout.groups])
    selected_PG = torch.ones_like(truncated_PG)
    if algorithm.select == Select.correct:
        selected_PG &= correct_PG
        if algorithm.overlong == Overlong.zero_reward:
            selected_PG &= ~truncated_PG
    if algorithm.overlong == Overlong.mask:
        selected_PG &= ~truncated_PG
    if algorithm.advantage.reward == AdvantageReward.total:
        selected_PG &= torch.tensor([[not math.isnan(score.total) for score in g.scores] for g in rollout.groups])
    return selected_PG


def advantages(rewards_PG: Tensor, algorithm: AlgorithmConfig) -> Tensor:
    """The (P, G) advantages of this rank's groups, computed with the rewards of all ranks; called on all ranks."""
    rewards_of_ranks = gather(rewards_PG)
    advantage = algorithm.advantage
    return group_advantages(
        torch.cat(rewards_of_ranks),
        baseline=advantage.baseline,
        scale=advantage.scale,
        std_ddof=advantage.std_ddof,
        eps=advantage.eps,
    ).split([len(rewards) for rewards in rewards_of_ranks])[rank()]


def _truncated(rollout: Rollout) -> Tensor:
    return torch.tensor([[completion.truncated for completion in g.completions] for g in rollout.groups])
