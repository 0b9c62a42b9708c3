"""A reward for being short among the group's responses (Kimi k1.5, arXiv:2501.12599, section 2.3.3, "Length Penalty").

    r1zero train algorithm.functions.advantage=examples/objectives/kimi_length.py:kimi_length

A response of length l gets 0.5 - (l - shortest) / (longest - shortest) on top of its reward, and at most 0 if it is
wrong: being short pays only for right answers. The sums become advantages as in Dr. GRPO. Kimi starts with WEIGHT = 0
and adds the penalty later, because it slows learning at first: train without it, then continue from that model.
"""

from grpo_cli.algorithm.advantage import group_advantages
from grpo_cli.choices import AdvantageScale

# P prompts, G completions a prompt
WEIGHT = 0.2


def kimi_length(rewards_PG, correct_PG, lengths_PG):
    """The (P, G) advantages: rewards with the length reward, minus their group's mean."""
    totals_PG = rewards_PG + WEIGHT * length_rewards(correct_PG, lengths_PG.double())
    return group_advantages(totals_PG, scale=AdvantageScale.none)


def length_rewards(correct_PG, lengths_PG):
    """The (P, G) length rewards; 0 in a group whose responses have the same length."""
    shortest_P1, longest_P1 = lengths_PG.amin(1, keepdim=True), lengths_PG.amax(1, keepdim=True)
    values_PG = 0.5 - (lengths_PG - shortest_P1) / (longest_P1 - shortest_P1).clamp(min=1)
    values_PG = values_PG.where(correct_PG, values_PG.clamp(max=0))
    return values_PG.where(longest_P1 > shortest_P1, 0.0)
