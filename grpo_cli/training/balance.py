"""Equal work for all ranks: training sequences are shared by their tokens, not by who sampled them.

The objective is a sum over sequences whose weights already divide by what all ranks have, so that it does not matter
which rank trains on one.
"""

from collections.abc import Sequence

from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.sharing import assign_owners
from grpo_cli.training.batch import TrainingSequence


def balanced(sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
    """This rank's share of the sequences of all ranks, of as many tokens as any other's to within one sequence; called
    on all ranks.
    """
    if world_size() == 1:
        return list(sequences)
    owners_of_ranks = assign_owners(gather([sequence.length for sequence in sequences]))
    owners = owners_of_ranks[rank()]
    leaving = {i: sequence for i, sequence in enumerate(sequences) if owners[i] != rank()}
    return [
        sequences[i] if sender == rank() else sent[i]
        for sender, sent in enumerate(gather(leaving))
        for i, owner in enumerate(owners_of_ranks[sender])
        if owner == rank()
    ]
