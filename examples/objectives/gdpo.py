"""GDPO: each reward term is normalised in its group before they are added (arXiv:2601.05242).

    r1zero train reward=r1 algorithm.functions.advantage=examples/objectives/gdpo.py:gdpo

In GRPO, responses that earn different terms can have the same sum, and so the same advantage. Here each term k gives
A_k = (reward_k - mean) / std over the group. The sum of weight_k A_k over the terms is then normalised over the batch.
The weights are those below: reward.terms.<name>.weight is not used, because the division by the std removes it.
"""

import torch

# P prompts, G completions a prompt
WEIGHTS: dict[str, float] = {}  # of terms that do not count 1, as in {"format": 0.5}


def gdpo(terms_PG, eps=1e-6):
    """The (P, G) advantages, with standard deviations of the sample (ddof 1), as in the authors' code."""
    total_PG = sum(WEIGHTS.get(name, 1.0) * _normalised(values, 1, eps) for name, values in terms_PG.items())
    return _normalised(total_PG, (0, 1), eps)


def _normalised(values, dims, eps):
    above_smallest = values - values.amin(dims, keepdim=True)  # equal values then give exactly 0
    centred = above_smallest - above_smallest.mean(dims, keepdim=True)
    std = centred.std(dims, keepdim=True)
    return torch.where(std > 0, centred / (std + eps), 0.0)
