"""GFPO: sample more, and learn only from the shortest responses (Group Filtered Policy Optimization, arXiv:2508.09726).

    r1zero train rollout.group_size=16 algorithm.functions.advantage=examples/objectives/gfpo.py:gfpo

The KEEP shortest responses of a group get (reward - mean) / std with the mean and the standard deviation of those that
are kept; the others get 0. `token_efficiency`, the paper's other measure, keeps those with the most reward per token.
While most responses are wrong, keeping the shortest makes responses longer: long wrong ones are not kept, so they are
not penalised.
"""

import torch

from grpo_cli.algorithm.advantage import group_advantages

# P prompts, G completions a prompt
KEEP = 8


def gfpo(rewards_PG, lengths_PG):
    """The (P, G) advantages."""
    return _of_the_first(-lengths_PG, rewards_PG)


def token_efficiency(rewards_PG, lengths_PG):
    """The (P, G) advantages."""
    return _of_the_first(rewards_PG / lengths_PG, rewards_PG)


def _of_the_first(measure_PG, rewards_PG):
    """Advantages of the KEEP responses of each group with the largest measure; of equal ones, of the earlier ones."""
    kept_PK = measure_PG.argsort(dim=1, descending=True, stable=True)[:, :KEEP]
    return torch.zeros_like(rewards_PG).scatter(1, kept_PK, group_advantages(rewards_PG.gather(1, kept_PK)))
