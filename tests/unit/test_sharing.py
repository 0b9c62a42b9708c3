import random

from hypothesis import given
from hypothesis import strategies as st

from grpo_cli.sharing import assign_owners

LENGTHS = st.lists(st.lists(st.integers(1, 3000), max_size=12), min_size=1, max_size=8)


def tokens_of_owners(lengths_of_ranks, owners_of_ranks) -> list[int]:
    tokens = [0] * len(lengths_of_ranks)
    for lengths, owners in zip(lengths_of_ranks, owners_of_ranks, strict=True):
        for length, owner in zip(lengths, owners, strict=True):
            tokens[owner] += length
    return tokens


@given(LENGTHS)
def test_ranks_differ_by_one_sequence_at_most(lengths_of_ranks):
    tokens = tokens_of_owners(lengths_of_ranks, assign_owners(lengths_of_ranks))
    assert max(tokens) - min(tokens) <= max((length for lengths in lengths_of_ranks for length in lengths), default=0)


def test_equal_sequences_stay_on_the_rank_that_sampled_them():
    assert assign_owners([[7, 7], [7, 7]]) == [[0, 0], [1, 1]]


def test_with_realistic_lengths_no_rank_is_idle():
    draw = random.Random(0)
    lengths_of_ranks = [[min(3000, int(draw.lognormvariate(5.5, 1.0))) for _ in range(32)] for _ in range(4)]
    before = [sum(lengths) for lengths in lengths_of_ranks]
    after = tokens_of_owners(lengths_of_ranks, assign_owners(lengths_of_ranks))
    assert sum(after) == sum(before)
    assert 1 - min(before) / max(before) > 0.1
    assert 1 - min(after) / max(after) < 0.01
