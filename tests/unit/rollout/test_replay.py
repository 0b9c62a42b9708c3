"""A step's rollout: sampled and stored, then replayed, with an engine that answers from a table."""

from concurrent.futures import Future
from dataclasses import replace

import pytest

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import DataError, SetupError
from grpo_cli.rollout import replay
from grpo_cli.rollout.replay import step_rollout
from grpo_cli.types import Completion, Problem, Prompt, Sampling, Score, Verdict

pytestmark = pytest.mark.usefixtures("one_rank")

PROMPTS = [Prompt(Problem(f"{n}", "", ""), "", (n,)) for n in range(12)]


class TableEngine:
    """Answers with the prompt's first token and whether the seed is even."""

    def generate(self, requests, sampling):
        for index, request in enumerate(requests):
            yield index, Completion((request.token_ids[0], request.seed % 2), (-0.1, -0.2), "", truncated=False)


class Parity:
    """Of each response, `right` if its second token is odd; otherwise 0. All responses to prompts below 6 are right."""

    def __init__(self, right: float = 1.0):
        self.right = right
        self.arguments = set()

    def submit(self, problem, completion, *, step, max_new_tokens):
        self.arguments.add((step, max_new_tokens))
        is_right = int(problem.id) < 6 or completion.token_ids[1] == 1
        future = Future()
        future.set_result(Score(self.right * is_right, {}, Verdict.correct if is_right else Verdict.wrong, None))
        return future


@pytest.fixture
def settings(tmp_path) -> TrainConfig:
    """Steps of 4 prompts with 3 responses each, stored in `tmp_path`."""
    config = TrainConfig()
    config.run.dir, config.logger.replayable = str(tmp_path), True
    config.rollout.prompts_per_step, config.rollout.group_size = 4, 3
    return config


def replaying(config: TrainConfig, **changes) -> TrainConfig:
    return replace(config, replay=config.run.dir, logger=replace(config.logger, replayable=False), **changes)


def collect(config, *, reward=None, sampler=None, engine=None):
    sampler = sampler or EpochSampler(PROMPTS, config.seed)
    return step_rollout(engine, reward or Parity(), sampler, Sampling(1.0, 1.0, 8), config, step=5)


def without_times(rollout):
    return rollout.groups, rollout.positions, rollout.discarded


def test_a_replay_has_the_groups_of_the_run_with_any_seed_and_without_an_engine(settings):
    settings.algorithm.dynamic_sampling.max_refills = 10  # replaces the groups of prompts below 6
    sampled = collect(settings, engine=TableEngine())
    assert sampled.discarded
    replayed = collect(replaying(settings, seed=3))
    assert without_times(replayed) == without_times(sampled)
    assert replayed.generation_s > 0


def test_nothing_is_stored_unless_the_run_is_replayable(settings, tmp_path):
    settings.logger.replayable = False
    collect(settings, engine=TableEngine())
    assert list(tmp_path.iterdir()) == []


def test_responses_are_scored_again_with_the_step_and_the_token_limit(settings):
    collect(settings, engine=TableEngine())
    reward = Parity(right=2.0)
    replayed = collect(replaying(settings), reward=reward)
    assert {score.total for group in replayed.groups for score in group.scores} == {0.0, 2.0}
    assert reward.arguments == {(5, 8)}


def test_the_sampler_counts_the_replayed_prompts(settings):
    sampler, again = EpochSampler(PROMPTS, 0), EpochSampler(PROMPTS, 0)
    collect(settings, engine=TableEngine(), sampler=sampler)
    collect(replaying(settings), sampler=again)
    assert again.metrics() == sampler.metrics()
    assert again.next(3) == sampler.next(3)


@pytest.mark.parametrize("prompts", [PROMPTS[:4], [replace(prompt, token_ids=(0, 0)) for prompt in PROMPTS]])
def test_prompts_that_the_run_does_not_have_are_an_error(settings, prompts):
    collect(settings, engine=TableEngine())
    with pytest.raises(DataError, match=r"replay_000005.npz: the prompt of the problem '\d+' is not one of this run's"):
        collect(replaying(settings), sampler=EpochSampler(prompts, 0))


def test_each_rank_gets_the_groups_that_it_sampled_and_other_numbers_of_ranks_share_them(settings, monkeypatch):
    whole = collect(settings, engine=TableEngine())
    shares = [(0, 3), (1, 2)]  # the positions that each of two ranks has sampled

    def part(positions):
        return replace(whole, groups=tuple(whole.groups[i] for i in positions), positions=positions)

    sent = []
    monkeypatch.setattr(replay, "gather", lambda mine: sent.append(mine) or sent)
    for number in (1, 0):  # rank 0 writes
        monkeypatch.setattr(replay, "rank", lambda number=number: number)
        replay._store(part(shares[number]), settings, 5)

    def positions(num_ranks):
        monkeypatch.setattr(replay, "world_size", lambda: num_ranks)
        of_ranks = []
        for number in range(num_ranks):
            monkeypatch.setattr(replay, "rank", lambda number=number: number)
            replayed = collect(replaying(settings))
            assert replayed.groups == tuple(whole.groups[i] for i in replayed.positions)
            of_ranks.append(replayed.positions)
        return of_ranks

    assert positions(2) == shares
    assert positions(1) == [(0, 1, 2, 3)]
    assert positions(4) == [(0,), (1,), (2,), (3,)]


def test_a_full_disk_is_reported_with_the_file(settings, monkeypatch):
    def full(file, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replay, "write_step", full)
    with pytest.raises(SetupError, match=r"replay_000005.npz cannot be written: No space left"):
        collect(settings, engine=TableEngine())
