"""GFPO: sample more, and learn only from the shortest responses (Group Filtered Policy Optimization, arXiv:2508.09726).

    r1zero train rollout.group_size=16 algorithm.functions.advantage=examples/objectives/gfpo.py:gfpo

The KEEP shortest responses of a group get (reward - mean) / std with the mean and the standard deviation of those that
are kept; the others get 0. `token_efficiency`, the paper's other measure, keeps those with the most reward per token.
"""

import torch

# P prompts, G completions a prompt
KEEP = 8


def gfpo(rewards_PG, lengths_PG):
    """The (P, G) advantages."""
    return _of_the_first(-lengths_PG, rewards_PG)


def token_efficiency(rewards_PG, lengths_PG):
    """The (P, G) advantages."""
    return _of_the_first(rewards_PG / lengths_PG, rewards_PG)


def _of_the_first(measure_PG, rewards_PG, eps=1e-6):
    """Advantages of the KEEP responses of each group with the largest measure; of equal ones, of the earlier ones."""
    kept_PK = measure_PG.argsort(dim=1, descending=True, stable=True)[:, :KEEP]
    rewards_PK = rewards_PG.gather(1, kept_PK)
    centred_PK = rewards_PK - rewards_PK.mean(1, keepdim=True)
    std_P1 = rewards_PK.std(1, keepdim=True, correction=0)
    return torch.zeros_like(rewards_PG).scatter(1, kept_PK, centred_PK / (std_P1 + eps))
