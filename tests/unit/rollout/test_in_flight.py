"""What is sampled ahead: the same responses in the same order, only with earlier weights; exact after a resume."""

from threading import Event

import pytest
from all_wrong import AllWrong

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.rollout.collect import collect_rollout
from grpo_cli.rollout.in_flight import InFlight, LearnerAndRollouts
from grpo_cli.types import Completion, Problem, Prompt, Sampling

pytestmark = pytest.mark.usefixtures("one_rank")
PROMPTS = [Prompt(Problem(str(n), "", ""), "", (n,)) for n in range(12)]
SAMPLING = Sampling(1.0, 1.0, 8)


class Weights:
    """An engine whose responses show the prompt, the request's seed and the weights, which a test sets."""

    def __init__(self):
        self.version, self.calls, self.may_start = 0, [], Event()
        self.may_start.set()

    def generate(self, requests, sampling):
        self.may_start.wait(timeout=60)
        self.calls.append(len(requests))
        for index in reversed(range(len(requests))):
            yield (
                index,
                Completion((self.version, *requests[index].token_ids), (-0.1,), str(requests[index].seed), False),
            )


class Run:
    def __init__(self, *, max_refills: int = 0, with_ahead: bool = True, temperature: float = 1.0):
        self.config = TrainConfig()
        self.config.cluster.rollout_ranks, self.config.rollout.temperature = 1, temperature
        self.config.rollout.prompts_per_step, self.config.rollout.group_size = 4, 2
        self.config.algorithm.dynamic_sampling.max_refills = max_refills
        self.engine, self.sampler = Weights(), EpochSampler(PROMPTS, seed=0)
        self.ahead = InFlight(self.engine, AllWrong(), self.sampler, self.config) if with_ahead else None

    def collect(self, step: int, sampling: Sampling = SAMPLING) -> list[tuple[int, str, int]]:
        """The prompt, the text and the version of the weights of each response of a step."""
        rollout = collect_rollout(
            self.engine, AllWrong(), self.sampler, sampling, self.config, step=step, in_flight=self.ahead
        )
        groups = [*rollout.groups, *rollout.discarded]
        return [(c.token_ids[1], c.text, c.token_ids[0]) for group in groups for c in group.completions]

    def step(self, step: int) -> list[tuple[int, str, int]]:
        """As the training loop: collect, start the next step, update, sync."""
        collected = self.collect(step)
        self.ahead.start(SAMPLING, step + 1)
        self.ahead.wait()
        self.engine.version = step
        return collected


def test_a_step_is_sampled_with_the_weights_before_the_last_update():
    run = Run()
    assert [{version for _, _, version in run.step(step)} for step in (1, 2, 3, 4)] == [{0}, {0}, {1}, {2}]


def test_ages_are_counted_in_updates():
    run = Run()
    ages = []
    for step in (1, 2, 3):
        rollout = collect_rollout(
            run.engine, AllWrong(), run.sampler, SAMPLING, run.config, step=step, in_flight=run.ahead
        )
        ages.append({completion.ages for group in rollout.groups for completion in group.completions})
        run.ahead.start(SAMPLING, step + 1)
        run.ahead.wait()
    assert ages == [{((2, 0),)}, {((2, 1),)}, {((2, 1),)}]


def test_prompts_and_seeds_are_those_of_a_run_that_does_not_sample_ahead():
    ahead, plain = Run(), Run(with_ahead=False)
    for step in range(1, 9):  # more than two epochs
        assert [row[:2] for row in ahead.step(step)] == [row[:2] for row in plain.collect(step)]


def test_starting_does_not_wait_and_waiting_does():
    run = Run()
    run.collect(1)
    run.engine.may_start.clear()
    run.ahead.start(SAMPLING, 2)
    assert run.engine.calls == [8]
    run.engine.may_start.set()
    run.ahead.wait()
    assert run.engine.calls == [8, 8]


def test_refills_are_sampled_with_the_newest_weights():
    run = Run(max_refills=1)
    run.step(1)
    assert [version for _, _, version in run.step(2)] == [0] * 8 + [1] * 8


def test_a_resumed_run_has_what_was_sampled_ahead(tmp_path):
    first, second = Run(), Run()
    first.step(1)
    first.ahead.save(tmp_path / "ahead")
    second.sampler.load_state_dict(first.sampler.state_dict())
    second.engine.version = 1  # the weights of the checkpoint, which have not sampled step 2
    second.ahead.load(tmp_path / "ahead")
    assert second.step(2) == first.step(2)
    assert second.engine.calls == [0, 8]
    assert second.step(3) == first.step(3)


def test_what_was_sampled_with_other_settings_is_not_used(tmp_path):
    first, second = Run(), Run(temperature=0.5)
    first.step(1)
    first.ahead.save(tmp_path / "ahead")
    second.sampler.load_state_dict(first.sampler.state_dict())
    second.ahead.load(tmp_path / "ahead")
    second.engine.version = 1
    assert {version for _, _, version in second.collect(2)} == {1}


def test_after_the_last_step_nothing_is_saved(tmp_path):
    run, resumed = Run(), Run()
    run.step(1)
    run.collect(2)  # the last step starts no other
    run.ahead.save(tmp_path / "ahead")
    resumed.ahead.load(tmp_path / "ahead")
    assert resumed.step(1) == Run().step(1)
    assert resumed.engine.calls[0] == 8


def test_a_checkpoint_without_it_can_be_loaded(tmp_path):
    run = Run()
    run.ahead.load(tmp_path / "ahead")
    assert len(run.step(1)) == 8


def test_a_checkpoint_holds_the_learner_and_what_is_sampled_ahead(tmp_path):
    class Learner:
        def save(self, folder):
            folder.mkdir()

        def load(self, folder):
            return folder.is_dir()

    run = Run()
    run.step(1)
    LearnerAndRollouts(Learner(), run.ahead).save(tmp_path / "deepspeed")
    assert (tmp_path / "in_flight/rank_00000.pt").is_file()
    assert LearnerAndRollouts(Learner(), run.ahead).load(tmp_path / "deepspeed")
