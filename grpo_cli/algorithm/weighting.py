"""The weight of each token in the objective."""

from math import ceil, inf
from typing import assert_never

import torch
from torch import Tensor

from grpo_cli.choices import Weighting

# B responses of one optimizer step, over all its ranks and micro-batches


def token_weights(
    lengths_B: Tensor, *, weighting: Weighting, max_new_tokens: int, selected_B: Tensor | None = None
) -> Tensor:
    """The (B,) float32 weights: one for all tokens of a response.

    With N responses in the step:

    - `sequence_mean`: 1 / (N * length), the mean over responses of the mean over tokens (GRPO,
      arXiv:2402.03300)
    - `constant`: 1 / (N * max_new_tokens), independent of length (Dr. GRPO, arXiv:2503.20783)
    - `token_mean`: 1 / (sum of lengths), the mean over tokens (DAPO, arXiv:2503.14476)
    - `sum`: 1 / N, the sum over tokens (REINFORCE and RLOO, arXiv:2402.14740)

    If `selected_B` (boolean) is False, the response is treated as if it had not been sampled: its weight is 0, and
    neither N nor the sum of lengths counts it. Compute the weights of the whole step before splitting it over ranks
    and micro-batches. The objective is then a sum of weighted terms, and splitting does not change it.
    """
    if selected_B is None:
        selected_B = torch.ones_like(lengths_B, dtype=torch.bool)
    lengths = lengths_B.double().clamp(min=1)
    num_responses = selected_B.sum()
    match weighting:
        case Weighting.sequence_mean:
            denominators = num_responses * lengths
        case Weighting.constant:
            denominators = num_responses * max_new_tokens
        case Weighting.token_mean:
            denominators = lengths[selected_B].sum()
        case Weighting.sum:
            denominators = num_responses
        case _:
            assert_never(weighting)
    return torch.where(selected_B, 1.0 / denominators, 0.0).float()


def top_threshold(values_N: Tensor, share: float) -> float:
    """The smallest of the `share` of values that are largest: at least one value. Infinite if there are no values.

    >>> top_threshold(torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), share=0.4)
    4.0
    """
    num_largest = min(max(ceil(share * len(values_N) - 1e-9), 1), len(values_N))
    return values_N.topk(num_largest).values[-1].item() if num_largest else inf
