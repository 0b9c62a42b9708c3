"""SAPO: a soft gate instead of the clip (Soft Adaptive Policy Optimization, arXiv:2511.20347).

    r1zero train algorithm.functions.surrogate=examples/objectives/sapo.py:sapo algorithm.num_minibatches=4

The term of a token with ratio r and advantage A is f(r) A, with f(r) = (4 / tau) sigmoid(tau (r - 1)). At r = 1 the
gradient is that of r A; further away it fades smoothly, and faster for a negative advantage, whose tau is larger.
"""

# B responses, T tokens


def sapo(logprobs_BT, old_logprobs_BT, advantages_BT, tau_positive=1.0, tau_negative=1.05):
    """The (B, T) terms. The temperatures are the paper's."""
    ratio_BT = (logprobs_BT - old_logprobs_BT).clamp(-20, 20).exp()
    tau_BT = (advantages_BT > 0) * (tau_positive - tau_negative) + tau_negative
    return 4 / tau_BT * (tau_BT * (ratio_BT - 1)).sigmoid() * advantages_BT
