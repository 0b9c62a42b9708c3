"""Collecting groups, with an engine that answers from a table."""

import math
from concurrent.futures import Future

import pytest

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.rollout import share as share_module
from grpo_cli.rollout.collect import collect_rollout, sample_seed
from grpo_cli.types import Completion, Problem, Prompt, Sampling, Score, Verdict

pytestmark = pytest.mark.usefixtures("one_rank")


PROMPTS = [Prompt(Problem(str(n), "", ""), "", (n,)) for n in range(12)]


class TableEngine:
    """Answers with the prompt's first token and the request's index, in reverse order of requests."""

    def __init__(self):
        self.seeds = []

    def generate(self, requests, sampling):
        requests = list(requests)
        self.seeds += [request.seed for request in requests]
        for index in reversed(range(len(requests))):
            yield index, Completion((requests[index].token_ids[0], index), (-0.5, -0.5), "", truncated=False)


class EasyBelow:
    """Responses to prompts below `number` are all right; for other prompts every second response is right."""

    def __init__(self, number):
        self.number = number
        self.arguments = set()

    def submit(self, problem, completion, *, step, max_new_tokens):
        self.arguments.add((step, max_new_tokens))
        prompt, index = completion.token_ids
        right = prompt < self.number or index % 2 == 0
        future = Future()
        future.set_result(Score(float(right), {}, Verdict.correct if right else Verdict.wrong, None))
        return future


def collect(easy_below: int = 0, *, reward=None, max_refills: int = 0, wanted: int = 4, step: int = 1):
    config = TrainConfig()
    config.rollout.prompts_per_step, config.rollout.group_size = wanted, 2
    config.algorithm.dynamic_sampling.max_refills = max_refills
    sampler = EpochSampler(PROMPTS, seed=0)
    engine = TableEngine()
    rollout = collect_rollout(
        engine, reward or EasyBelow(easy_below), sampler, Sampling(1.0, 1.0, 8), config, step=step
    )
    return rollout, engine, sampler


def test_groups_are_complete_and_in_order_for_any_order_of_the_engine():
    rollout, _, _ = collect(easy_below=0)
    assert rollout.positions == (0, 1, 2, 3)
    for group in rollout.groups:
        assert [c.token_ids[0] for c in group.completions] == [group.prompt.token_ids[0]] * 2
        assert [score.total for score in group.scores] == [1.0, 0.0]


def test_every_response_has_a_different_seed():
    _, engine, _ = collect(easy_below=0)
    _, later, _ = collect(easy_below=0, step=2)
    assert len({*engine.seeds, *later.seeds}) == 16
    assert all(0 <= seed < 2**63 for seed in engine.seeds)
    assert sample_seed(0, 1, "a", 0) == sample_seed(0, 1, "a", 0)


def test_agreeing_groups_are_replaced_until_the_batch_is_full():
    rollout, _, sampler = collect(easy_below=6, max_refills=10)
    assert len(rollout.groups) == 4
    assert all(group.prompt.token_ids[0] >= 6 for group in rollout.groups)
    drawn = len(rollout.groups) + len(rollout.discarded)
    assert all(group.prompt.token_ids[0] < 6 for group in rollout.discarded)
    # The sampler's position is after the last prompt that was drawn.
    again = EpochSampler(PROMPTS, seed=0)
    again.next(drawn)
    assert again.next(3) == sampler.next(3)


def test_with_too_few_refills_agreeing_groups_are_used():
    rollout, _, _ = collect(easy_below=12, max_refills=2)
    assert len(rollout.groups) == 4
    assert len(rollout.discarded) == 8
    assert rollout.positions == (0, 1, 2, 3)


def test_without_dynamic_sampling_nothing_is_discarded():
    rollout, _, _ = collect(easy_below=12)
    assert rollout.discarded == ()
    assert len(rollout.groups) == 4


class Unjudged:
    """No rule can judge the responses. For prompts below 6 all rewards are equal, for others they differ.

    For prompts below 3, no term applies to every second response.
    """

    def submit(self, problem, completion, *, step, max_new_tokens):
        prompt, index = completion.token_ids
        future = Future()
        equal = math.nan if prompt < 3 and index % 2 else 1.0
        future.set_result(Score(equal if prompt < 6 else float(index), {}, Verdict.unjudged, None))
        return future


def test_general_groups_agree_if_their_rewards_are_equal():
    rollout, _, _ = collect(reward=Unjudged(), max_refills=10)
    assert {group.prompt.token_ids[0] >= 6 for group in rollout.groups} == {True}
    assert {group.prompt.token_ids[0] < 6 for group in rollout.discarded} == {True}


def test_the_reward_gets_the_step_and_the_token_limit():
    reward = EasyBelow(0)
    collect(reward=reward, step=7)
    assert reward.arguments == {(7, 8)}


def test_prompts_are_split_between_ranks_by_the_lengths_of_their_last_responses(monkeypatch):
    sampler = EpochSampler(PROMPTS, seed=0)

    def shares() -> list[list[int]]:
        monkeypatch.setattr(share_module, "world_size", lambda: 2)
        of_ranks = []
        for rank in (0, 1):
            monkeypatch.setattr(share_module, "rank", lambda rank=rank: rank)
            of_ranks.append(share_module.share(PROMPTS[:4], sampler))
        return of_ranks

    for prompt, length in zip(PROMPTS[:3], (300.0, 100.0, 100.0), strict=True):
        sampler.record(prompt, length)
    assert shares() == [[0, 2], [1, 3]]  # the fourth length is unknown, so prompts are assigned in turn
    sampler.record(PROMPTS[3], 100.0)
    assert shares() == [[0], [1, 2, 3]]


def test_the_sampler_remembers_response_lengths_by_prompt():
    _, _, sampler = collect()
    drawn = EpochSampler(PROMPTS, seed=0).next(4)
    assert [sampler.expected_length(prompt) for prompt in PROMPTS] == [
        2.0 if prompt in drawn else None for prompt in PROMPTS
    ]


@pytest.mark.parametrize(("reward", "of_first", "of_others"), [(EasyBelow(6), 1.0, 0.5), (Unjudged(), None, None)])
def test_the_sampler_gets_the_share_of_right_responses(reward, of_first, of_others, monkeypatch):
    rates = {}
    monkeypatch.setattr(EpochSampler, "record", lambda _, prompt, length, rate: rates.update({prompt: rate}))
    collect(reward=reward, wanted=12)
    assert rates == {prompt: of_first if prompt.token_ids[0] < 6 else of_others for prompt in PROMPTS}
