"""GMPO: the geometric mean of a response's ratios, clipped token by token (arXiv:2507.20673).

    r1zero train algorithm.functions.surrogate=examples/objectives/gmpo.py:gmpo algorithm.num_minibatches=4

With the log ratio x of a token and the sign s of the response's advantage A, the log ratio is clipped to
s min(s x, s clip(x, -0.4, 0.4)), and the response's term is A exp(mean over its tokens). Every token gets the term of
its response, so with algorithm.weighting=sequence_mean (the default) the objective is the mean over responses.
"""

# B responses, T tokens


def gmpo(logprobs_BT, old_logprobs_BT, advantages_BT, mask_BT, clip=0.4):
    """The (B, T) terms. The clipping range (exp(-0.4), exp(0.4)) is the paper's."""
    sign_BT = advantages_BT.sign()
    log_ratio_BT = logprobs_BT - old_logprobs_BT
    clipped_BT = sign_BT * (sign_BT * log_ratio_BT).minimum(sign_BT * log_ratio_BT.clamp(-clip, clip))
    mean_B1 = clipped_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1.clamp(-20, 20).exp() * advantages_BT
