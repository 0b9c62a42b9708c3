"""How ranks share work, so that none waits for the others."""

from collections.abc import Sequence


def assign_owners(sizes_of_ranks: Sequence[Sequence[float]]) -> list[list[int]]:
    """For each rank's pieces of work, given by their sizes, the rank that does it.

    The largest comes first, and goes to the rank with the least work so far (Graham 1969, "LPT"): the ranks' sums then
    differ by at most one piece. Of ranks with equally little, its own is preferred.

    >>> assign_owners([[5, 3], [1, 1]])
    [[0, 1], [1, 1]]
    """
    owners = [[0] * len(sizes) for sizes in sizes_of_ranks]
    work = [0] * len(sizes_of_ranks)
    places = [(-size, i, home) for home, sizes in enumerate(sizes_of_ranks) for i, size in enumerate(sizes)]
    for minus_size, i, home in sorted(places):
        owner = min(range(len(work)), key=lambda r: (work[r], r != home, r))
        work[owner] -= minus_size
        owners[home][i] = owner
    return owners
