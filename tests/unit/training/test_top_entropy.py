import pytest
import torch
from torch import tensor

from grpo_cli.training import top_entropy
from grpo_cli.training.batch import TrainingSequence, make_microbatches
from grpo_cli.training.top_entropy import with_top_entropy

SHORT = TrainingSequence((1,), (2, 3), advantage=2.0, weight=0.2)
LONG = TrainingSequence((1,), (2, 3, 4), advantage=(-1.0, -2.0, -3.0), weight=(0.2, 0.2, 0.2))
IGNORED = TrainingSequence((1,), (2,), advantage=5.0, weight=0.0)
ENTROPIES = {SHORT: tensor([0.1, 2.0]), LONG: tensor([1.0, 0.2, 3.0]), IGNORED: tensor([9.0])}


def forward(sequences, *, with_entropy):
    for microbatch in make_microbatches(sequences, 5, torch.device("cpu")):
        yield microbatch, None, torch.cat([ENTROPIES[s] for s in microbatch.sequences])


def advantages(share: float) -> list[tuple[float, ...]]:
    return [s.advantages for s in with_top_entropy([SHORT, LONG, IGNORED], forward, share)][:2]


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, [(0, 0), (0, 0, -3)]),  # one of five tokens; the token without weight does not count
        (0.4, [(0, 2), (0, 0, -3)]),
        (0.41, [(0, 2), (-1, 0, -3)]),  # the third of five
        (0.01, [(0, 0), (0, 0, -3)]),  # at least one
        (1.0, [(2, 2), (-1, -2, -3)]),
    ],
)
def test_only_the_tokens_with_the_highest_entropy_keep_their_advantage(share, expected):
    assert advantages(share) == expected


@pytest.mark.usefixtures("one_rank")
def test_weights_and_so_the_denominator_stay():
    kept = with_top_entropy([SHORT, LONG, IGNORED], forward, 0.2)
    assert [s.weights for s in kept] == [SHORT.weights, LONG.weights, IGNORED.weights]


def test_the_share_is_of_the_tokens_of_all_ranks(monkeypatch):
    monkeypatch.setattr(top_entropy, "gather", lambda value: [value, tensor([4.0] * 5)])
    assert advantages(0.5) == [(0, 0), (0, 0, 0)]  # the five largest of ten are on the other rank
    assert advantages(0.6) == [(0, 0), (0, 0, -3)]


def test_a_rank_without_sequences_takes_part(monkeypatch):
    monkeypatch.setattr(top_entropy, "gather", lambda value: [value])
    assert with_top_entropy([], forward, 0.2) == []
