"""The order of the prompts: seeded, every prompt once per epoch, exact after a resume."""

import json

import pytest

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError
from grpo_cli.types import Problem, Prompt


def prompts(size, text="{}?"):
    return [Prompt(Problem(str(n), f"{n}", "1"), text.format(n), (n,)) for n in range(size)]


def ids(taken):
    return [int(prompt.problem.id) for prompt in taken]


def test_each_epoch_gives_every_prompt_once_in_a_new_order():
    sampler = EpochSampler(prompts(20), seed=0)
    first, second = ids(sampler.next(20)), ids(sampler.next(20))
    assert sorted(first) == sorted(second) == list(range(20))
    assert len({tuple(first), tuple(second), tuple(range(20))}) == 3


def test_a_batch_continues_over_the_end_of_an_epoch():
    whole, parts = EpochSampler(prompts(5), seed=0), EpochSampler(prompts(5), seed=0)
    assert ids(whole.next(15)) == [n for count in (3, 3, 7, 2) for n in ids(parts.next(count))]


def test_the_seed_determines_the_order():
    first, again, other = (ids(EpochSampler(prompts(20), seed).next(40)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_does_not_change_between_versions():
    # Fixed values: a run resumed with another order would see some prompts twice and others never.
    assert ids(EpochSampler(prompts(8), seed=0).next(12)) == [0, 2, 1, 4, 6, 7, 3, 5, 6, 1, 0, 2]


@pytest.mark.parametrize("taken", [0, 3, 5, 6, 23])
def test_a_sampler_continues_from_the_state_of_another(taken):
    saved, resumed = EpochSampler(prompts(5), seed=7), EpochSampler(prompts(5), seed=7)
    saved.next(taken)
    resumed.next(2)
    resumed.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    assert resumed.state_dict() == saved.state_dict()
    assert ids(resumed.next(12)) == ids(saved.next(12))


def test_the_lengths_of_responses_are_part_of_the_state():
    items = prompts(5)
    saved, resumed = EpochSampler(items, seed=7), EpochSampler(items, seed=7)
    saved.record(items[3], 41.5)
    resumed.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    assert [resumed.expected_length(item) for item in items] == [None, None, None, 41.5, None]


@pytest.mark.parametrize("size", [3, 6])
def test_other_prompts_start_at_their_first_epoch_if_they_may_differ(size):
    saved, other = EpochSampler(prompts(5), seed=0), EpochSampler(prompts(size), seed=0)
    saved.next(7)
    saved.record(saved.items[0], 41.5)
    other.next(2)
    assert not other.load_state_dict(saved.state_dict(), may_differ=True)
    assert other.state_dict() == EpochSampler(prompts(size), seed=0).state_dict()
    with pytest.raises(CheckpointError, match="its seed is 0"):
        EpochSampler(prompts(5), seed=1).load_state_dict(saved.state_dict(), may_differ=True)


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (EpochSampler(prompts(6), seed=0), "num_items is 5, but this run's is 6"),
        (EpochSampler(prompts(5), seed=1), "seed is 0, but this run's is 1"),
        (EpochSampler(prompts(5, text="Q: {}"), seed=0), "fingerprint"),
        (EpochSampler(prompts(5)[::-1], seed=0), "fingerprint"),
    ],
)
def test_a_state_of_other_prompts_is_rejected_and_changes_nothing(other, fault):
    state = EpochSampler(prompts(5), seed=0).state_dict()
    before = other.state_dict()
    with pytest.raises(CheckpointError, match=f"belongs to other data: its {fault}"):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_the_share_of_the_data_that_was_drawn_continues_after_a_resume():
    sampler = EpochSampler(list("abcd"), seed=0)
    sampler.next(3)
    assert sampler.metrics()["epoch"] == 0.75
    resumed = EpochSampler(list("abcd"), seed=0)
    resumed.load_state_dict(sampler.state_dict())
    resumed.next(2)
    assert resumed.metrics()["epoch"] == 1.25
