"""Clip-Cov: a few tokens with a large covariance get no gradient, so that entropy falls more slowly (arXiv:2505.22617).

    r1zero train algorithm.functions.weighting=examples/objectives/clip_cov.py:clip_cov

The covariance of a token is (log p - mean log p) (A - mean A), with means over the tokens of the optimizer step. Some
tokens whose covariance is between 1 and 5 get the weight 0: 0.0002 of all tokens, chosen at random. The others keep the
weight of algorithm.weighting=token_mean.

Two differences from the paper: log p is the sampler's, which is the policy's in the first step after a rollout, because
weights are fixed before the step is split. The random choice is seeded, so that a resumed run repeats it.
"""

import torch

# B responses, T tokens


def clip_cov(mask_BT, selected_B, advantages_BT, sampler_logprobs_BT, share=2e-4, low=1.0, high=5.0):
    """The (B, T) weights. The defaults are the paper's."""
    counted_BT = mask_BT & selected_B[:, None]
    num_tokens = int(counted_BT.sum())
    covariance_N = _centred(sampler_logprobs_BT[counted_BT]) * _centred(advantages_BT[counted_BT])
    (candidates,) = ((covariance_N > low) & (covariance_N < high)).nonzero(as_tuple=True)
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))
    weights_N = torch.full((num_tokens,), 1 / max(num_tokens, 1))
    weights_N[candidates[order[: max(int(share * num_tokens), 1)]]] = 0.0
    return torch.zeros(mask_BT.shape).masked_scatter(counted_BT, weights_N)


def _centred(values_N):
    return values_N - values_N.mean()
