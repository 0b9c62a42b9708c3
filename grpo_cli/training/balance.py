"""Equal work for all ranks: training sequences are distributed by their tokens, not by the rank that sampled them.

The objective is a sum over sequences, and their weights already contain the denominator over all ranks. So it does not
matter which rank trains on a sequence.
"""

from collections.abc import Sequence
from typing import TypeVar

from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.sharing import assign_owners
from grpo_cli.training.batch import TrainingSequence

Item = TypeVar("Item")


def balanced(sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
    """This rank's share of the sequences of all ranks; called on all ranks.

    The shares have the same number of tokens, up to the length of one sequence.
    """
    if world_size() == 1:
        return list(sequences)
    owners_of_ranks = assign_owners(gather([sequence.length for sequence in sequences]))
    owners = owners_of_ranks[rank()]
    to_other_ranks = {i: sequence for i, sequence in enumerate(sequences) if owners[i] != rank()}
    return [
        sequences[i] if sender == rank() else sent[i]
        for sender, sent in enumerate(gather(to_other_ranks))
        for i, owner in enumerate(owners_of_ranks[sender])
        if owner == rank()
    ]


def pad_to_all_ranks(microbatches: Sequence[Item], filler: Item) -> list[Item]:
    """The micro-batches, then `filler` until every rank has the same number; called on all ranks.

    Under ZeRO-3 each forward pass gathers weights from all ranks, and a rank that makes one more waits for ever.
    """
    missing = max(gather(len(microbatches))) - len(microbatches)
    return [*microbatches, *[filler] * missing]
