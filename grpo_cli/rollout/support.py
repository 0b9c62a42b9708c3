"""The support of each sampled token: the ids that `rollout.top_p` and `rollout.top_k` left to choose from.

vLLM samples from the distribution over the support and returns log-probabilities renormalised over it. The trainer does
the same with its own logits, so that without an update every ratio is 1. This is "Keep Sampling Mask" of DeepSeek-V3.2
(arXiv:2512.02556, section 3.1).

vLLM's `return_sampling_mask` works only in its model runner for GPUs. So the support comes from what both runners
return: log-probabilities after top_k and top_p, with -inf outside of it.

N response tokens, K ids in the largest support, V vocabulary.
"""

import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

ID_BYTES = array("i").itemsize
OUTSIDE = -1e30  # instead of -inf: its product with a probability of 0 is 0, not nan


def packed(token_ids: Sequence[int], logprobs: Sequence[float]) -> bytes:
    """The different ids that have a probability, as 4 bytes each. After the first, they must be the most likely first.

    >>> list(memoryview(packed([7, 5, 7, 9], [-1.1, -0.4, -1.1, -math.inf])).cast("i"))
    [7, 5]
    """
    num_possible = logprobs.index(-math.inf) if -math.inf in logprobs else len(logprobs)
    return array("i", dict.fromkeys(token_ids[:num_possible])).tobytes()


def padded(supports: Sequence[Sequence[bytes] | None], device: torch.device) -> Tensor | None:
    """The supports of several responses' tokens as (N, K) ids; shorter ones repeat their first id.

    None if a response has none: it was sampled from the whole vocabulary, or was not sampled.
    """
    if None in supports or not any(supports):
        return None
    rows = [row for of_response in supports for row in of_response or ()]
    sizes_N = torch.tensor([len(row) // ID_BYTES for row in rows], device=device)
    ids = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.int32).to(device)
    present_NK = torch.arange(sizes_N.max(), device=device) < sizes_N[:, None]
    ids_NK = torch.zeros_like(present_NK, dtype=torch.int32).masked_scatter(present_NK, ids)
    return ids_NK.where(present_NK, ids_NK[:, :1])


def keep_only_(logits_NV: Tensor, support_NK: Tensor) -> Tensor:
    """The logits, after all ids outside of a row's support were excluded in place: logits fill most of the memory."""
    outside_NV = torch.ones_like(logits_NV, dtype=torch.bool).scatter_(-1, support_NK.long(), False)
    return logits_NV.masked_fill_(outside_NV, OUTSIDE)
