"""Equal work for all ranks: training sequences are shared by their tokens, not by who sampled them.

The objective is a sum over sequences whose weights already divide by what all ranks have, so that it does not matter
which rank trains on one.
"""

from collections.abc import Sequence

from grpo_cli.ranks import gather, rank, world_size
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


def assign_owners(lengths_of_ranks: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each rank's sequences, given by their lengths in tokens, the rank that trains on each.

    The longest comes first, and goes to the rank with the fewest tokens so far (Graham 1969, "LPT"): the ranks' sums
    then differ by at most one sequence. Of ranks with equally few, its own is preferred.

    >>> assign_owners([[5, 3], [1, 1]])
    [[0, 1], [1, 1]]
    """
    owners = [[0] * len(lengths) for lengths in lengths_of_ranks]
    tokens = [0] * len(lengths_of_ranks)
    places = [(-length, i, home) for home, lengths in enumerate(lengths_of_ranks) for i, length in enumerate(lengths)]
    for minus_length, i, home in sorted(places):
        owner = min(range(len(tokens)), key=lambda r: (tokens[r], r != home, r))
        tokens[owner] -= minus_length
        owners[home][i] = owner
    return owners
