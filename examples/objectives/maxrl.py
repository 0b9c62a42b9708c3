"""MaxRL: advantages divided by the success rate (Maximum Likelihood Reinforcement Learning, arXiv:2602.02710).

    r1zero train reward=accuracy algorithm.surrogate=none algorithm.weighting=sum \\
      algorithm.functions.advantage=examples/objectives/maxrl.py:maxrl

The advantage of a response with reward r is (r - mean) / mean over its group, and 0 if no response succeeds. With
rewards of 0 and 1 the expected gradient approaches that of log(success rate) as groups grow: rare successes count more.
"""

# P prompts, G completions a prompt


def maxrl(rewards_PG):
    """The (P, G) advantages. Rewards must not be negative."""
    mean_P1 = rewards_PG.mean(1, keepdim=True)
    return (rewards_PG - mean_P1) / mean_P1.where(mean_P1 > 0, 1.0)
