"""Training only on the tokens with the highest entropy.

N response tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grpo_cli.algorithm.weighting import top_threshold
from grpo_cli.ranks import gather
from grpo_cli.training.batch import MicroBatch, TrainingSequence

Forward = Callable[..., Iterable[tuple[MicroBatch, Tensor, Tensor | None]]]  # Policy.forwarded


def with_top_entropy(sequences: Sequence[TrainingSequence], forward: Forward, share: float) -> list[TrainingSequence]:
    """The sequences, with the advantage 0 for all but the `share` of tokens with the highest entropy.

    Called on all ranks: the share is of the tokens with a weight on all of them. The denominator of the weights stays
    (arXiv:2506.01939, where the share is 0.2 and the other tokens have no gradient).
    """
    entropies: dict[TrainingSequence, Tensor] = {}
    for microbatch, _, entropy_N in forward(sequences, with_entropy=True):
        assert entropy_N is not None
        entropies |= microbatch.by_sequence(entropy_N.cpu())
    of_ranks = gather(torch.cat([torch.empty(0), *(entropies[s] for s in sequences if s.has_weight)]))
    threshold = top_threshold(torch.cat(of_ranks), share)
    return [
        replace(s, advantage=tuple(torch.tensor(s.advantages).where(entropies[s] >= threshold, 0.0).tolist()))
        for s in sequences
    ]
