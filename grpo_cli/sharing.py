"""Dividing work evenly over ranks, so that no rank waits for the others."""

from collections.abc import Sequence


def assign_owners(sizes_of_ranks: Sequence[Sequence[float]]) -> list[list[int]]:
    """For each piece of work, listed by the rank that has it and given by its size, the rank that does it.

    The largest piece comes first and goes to the rank with the least work so far (Graham 1969, "LPT"), so the ranks'
    sums differ by at most one piece. Among ranks with equal work, the rank that has the piece is preferred.

    >>> assign_owners([[5, 3], [1, 1]])
    [[0, 1], [1, 1]]
    """
    owners = [[0] * len(sizes) for sizes in sizes_of_ranks]
    work = [0.0] * len(sizes_of_ranks)
    pieces = [(-size, i, home) for home, sizes in enumerate(sizes_of_ranks) for i, size in enumerate(sizes)]
    for minus_size, i, home in sorted(pieces):
        owner = min(range(len(work)), key=lambda r: (work[r], r != home, r))
        work[owner] -= minus_size
        owners[home][i] = owner
    return owners
