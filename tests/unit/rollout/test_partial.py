"""Partial rollouts, with an engine whose tokens show which weights have sampled them."""

import random
from itertools import pairwise

import pytest
import torch
from all_wrong import AllWrong

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.rollout import partial
from grpo_cli.rollout.collect import Rollout, collect_rollout
from grpo_cli.rollout.in_flight import InFlight
from grpo_cli.rollout.segments import num_to_sample
from grpo_cli.types import Completion, Problem, Prompt, Sampling

pytestmark = pytest.mark.usefixtures("one_rank")
PROMPTS = [Prompt(Problem(str(n), "", ""), "", (n,)) for n in range(40)]
LIMIT = 24
SAMPLING = Sampling(1.0, 1.0, LIMIT)


class Lengths:
    """An engine that samples tokens with the version of the weights as their id, after a first one with the length."""

    def __init__(self):
        self.version, self.calls, self.seeds = 0, [], []

    def generate(self, requests, sampling):
        self.calls.append(len(requests))
        self.seeds += [request.seed for request in requests]
        for index, request in reversed(list(enumerate(requests))):
            known = request.prefix.token_ids if request.prefix else ()
            length = known[0] if known else random.Random(request.seed).choice([2, 4, 6, LIMIT + 5])
            token_ids = known or (length,)
            room = num_to_sample(request, sampling) - (not known)
            token_ids += (self.version,) * min(room, length - len(token_ids))
            yield index, Completion(token_ids, (-0.1,) * len(token_ids), f"{request.seed}", len(token_ids) < length)


class Run:
    def __init__(self, *, oversample: int = 3, max_staleness: int = 1, rollout_ranks: int = 0):
        self.config = TrainConfig()
        rollout = self.config.rollout
        rollout.prompts_per_step, rollout.group_size, rollout.segment_tokens = 4, 2, 3
        rollout.oversample, rollout.max_staleness = oversample, max_staleness
        self.config.cluster.rollout_ranks = rollout_ranks
        assert not list(self.config._staleness_faults())
        self.engine, self.sampler = Lengths(), EpochSampler(PROMPTS, seed=0)
        self.in_flight = InFlight(self.engine, AllWrong(), self.sampler, self.config)

    def step(self, step: int) -> Rollout:
        """As the training loop: collect, start the next step, update, sync."""
        rollout = collect_rollout(
            self.engine, AllWrong(), self.sampler, SAMPLING, self.config, step=step, in_flight=self.in_flight
        )
        self.in_flight.start(SAMPLING, step + 1)
        self.in_flight.wait()
        self.engine.version = step
        return rollout


def seen(rollout: Rollout) -> list[tuple[int, tuple[int, ...]]]:
    return [(group.prompt.token_ids[0], c.token_ids) for group in rollout.groups for c in group.completions]


LAYOUTS = pytest.mark.parametrize(
    ("max_staleness", "rollout_ranks"), [(1, 0), (3, 0), (2, 1)], ids=["one step", "three steps", "a step ahead"]
)


@LAYOUTS
def test_every_step_has_complete_groups_of_prompts_and_no_prompt_is_lost(max_staleness, rollout_ranks):
    run = Run(max_staleness=max_staleness, rollout_ranks=rollout_ranks)
    rollouts = [run.step(step) for step in range(1, 9)]
    trained = [group.prompt for rollout in rollouts for group in rollout.groups]
    assert [len(rollout.groups) for rollout in rollouts] == [4] * 8
    assert len(run.in_flight._waiting) == 3
    assert len(set(trained)) == 32
    ends = {len(c.token_ids) for rollout in rollouts for group in rollout.groups for c in group.completions}
    assert ends == {2, 4, 6, LIMIT}


@LAYOUTS
def test_no_token_is_older_than_allowed_and_ages_are_true(max_staleness, rollout_ranks):
    run = Run(max_staleness=max_staleness, rollout_ranks=rollout_ranks)
    oldest = 0
    for step in range(1, 9):
        rollout = run.step(step)
        for completion in (c for group in rollout.groups for c in group.completions):
            versions = completion.token_ids[1:]
            assert completion.token_ages[1:] == tuple(step - 1 - version for version in versions)
            oldest = max(oldest, *completion.token_ages)
    assert oldest == max_staleness


def test_a_step_does_not_wait_for_the_longest_responses():
    """Rounds of a segment: without more prompts than needed, as many as the longest response has segments."""
    run = Run(max_staleness=3)
    run.step(1)
    assert len(run.engine.calls) < LIMIT // 3


def test_every_segment_has_a_different_seed():
    run = Run()
    for step in range(1, 5):
        run.step(step)
    assert len(set(run.engine.seeds)) == len(run.engine.seeds)


def test_a_continued_response_has_the_tokens_of_all_its_steps():
    run = Run()
    carried = [c for step in range(1, 9) for g in run.step(step).groups for c in g.completions if len(c.ages) > 1]
    assert any(len(set(c.token_ids[1:])) > 1 for c in carried)
    for completion in carried:
        assert len(completion.logprobs) == len(completion.token_ids) == len(completion.token_ages)
        assert all(before <= after for before, after in pairwise(completion.token_ids[1:]))


@LAYOUTS
def test_a_resumed_run_continues_what_was_in_flight(tmp_path, max_staleness, rollout_ranks):
    first = Run(max_staleness=max_staleness, rollout_ranks=rollout_ranks)
    second = Run(max_staleness=max_staleness, rollout_ranks=rollout_ranks)
    for step in (1, 2, 3):
        first.step(step)
    first.in_flight.save(tmp_path / "in_flight")
    second.sampler.load_state_dict(first.sampler.state_dict())
    second.engine.version = 3
    second.in_flight.load(tmp_path / "in_flight")
    for step in (4, 5, 6):
        ours, theirs = first.step(step), second.step(step)
        assert seen(ours) == seen(theirs)
        assert ours.groups == theirs.groups


def test_what_was_sampled_with_other_settings_is_sampled_again(tmp_path):
    first, second = Run(), Run()
    first.step(1)
    first.in_flight.save(tmp_path / "in_flight")
    second.config.rollout.temperature = 0.5
    second.sampler.load_state_dict(first.sampler.state_dict())
    second.engine.version = 1
    second.in_flight.load(tmp_path / "in_flight")
    rollout = second.step(2)
    assert {token for _, token_ids in seen(rollout) for token in token_ids[1:]} == {1}
    waited = {group.prompt for group in first.in_flight._waiting}
    assert waited <= {group.prompt for group in rollout.groups}  # none was lost


def test_prompts_that_the_data_no_longer_has_are_dropped(tmp_path):
    first, second = Run(), Run()
    first.step(1)
    first.in_flight.save(tmp_path / "in_flight")
    second.sampler.items = PROMPTS[::-1]
    second.in_flight.load(tmp_path / "in_flight")
    assert second.in_flight._waiting == ()
    assert second.in_flight._num_new == 7


def test_other_ranks_share_what_is_waiting(tmp_path, monkeypatch):
    first, alone = Run(), Run()
    first.step(1)
    first.in_flight.save(tmp_path / "in_flight")
    states = torch.load(tmp_path / "in_flight/rank_00000.pt", weights_only=False)
    halves = [states | {"waiting": states["waiting"][half::2]} for half in (0, 1)]
    for number, state in enumerate(halves):
        torch.save(state, tmp_path / f"in_flight/rank_{number:05d}.pt")
    alone.in_flight.load(tmp_path / "in_flight")
    assert alone.in_flight._waiting == first.in_flight._waiting


def test_a_step_trains_on_the_first_prompts_of_all_ranks(monkeypatch):
    """The other rank has four complete groups, which an earlier step has drawn; this one may wait with its own."""
    run = Run()
    others = {(1, index): (run.sampler.place(PROMPTS[index]), True) for index in range(4)}
    monkeypatch.setattr(partial, "gather", lambda mine, _: [mine, others])
    draw = partial.sample_partial(
        run.engine, AllWrong(), run.sampler, run.config, PROMPTS[20:24], SAMPLING, step=2, waiting=()
    )
    assert draw.groups == {}
    assert list(draw.prompts) == PROMPTS[:4]
    assert len(draw.waiting) == 4
