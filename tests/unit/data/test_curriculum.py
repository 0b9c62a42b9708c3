"""Problems whose running pass rate is outside a range are skipped, come back, and are the same after a resume."""

import json

import pytest

from grpo_cli.config.data import CurriculumConfig
from grpo_cli.data.pass_rates import Curriculum
from grpo_cli.data.sampler import EpochSampler

ITEMS = [f"problem {n}" for n in range(4)]


def curriculum(return_after: int = 3) -> Curriculum:
    return Curriculum(0.1, 0.9, weight=0.5, return_after=return_after)


def test_the_running_rate_moves_halfway_to_the_last_group():
    running = curriculum()
    for epoch, rate in enumerate((1.0, 0.5, 0.0)):
        running.record(7, rate, epoch)
    assert running.state() == [[7, 0.375, 2]]  # 1, then (1 + 0.5) / 2 = 0.75, then 0.75 / 2


@pytest.mark.parametrize(
    ("rate", "epoch", "skipped"),
    [
        (1.0, 5, True),
        (0.0, 7, True),
        (0.0, 8, False),  # three epochs after its last group
        (0.9, 5, False),  # the range includes its ends
        (0.1, 5, False),
    ],
)
def test_a_problem_is_skipped_outside_the_range_until_it_returns(rate, epoch, skipped):
    running = curriculum()
    running.record(0, rate, epoch=5)
    assert running.skips(0, epoch) is skipped
    assert not running.skips(1, epoch)  # not sampled yet


def test_the_sampler_passes_over_what_is_skipped():
    sampler = EpochSampler(ITEMS, seed=0, curriculum=curriculum())
    first = sampler.next(4)
    for item in first:
        sampler.record(item, length=1.0, pass_rate=float(item in ITEMS[:2]) if item != ITEMS[3] else 0.5)
    assert sampler.metrics() == {"epoch": 1.0, "curriculum/outside": 0.75}
    assert sampler.next(2) == [ITEMS[3]] * 2  # in epochs 1 and 2
    assert sorted(sampler.next(4)) == ITEMS  # epoch 3: all are back
    assert sampler.metrics()["epoch"] == 4.0


def test_a_problem_that_no_rule_can_judge_is_not_skipped():
    sampler = EpochSampler(ITEMS, seed=0, curriculum=curriculum())
    for item in sampler.next(4):
        sampler.record(item, length=1.0, pass_rate=None)
    assert sorted(sampler.next(4)) == ITEMS


def test_the_pass_rates_are_part_of_the_state():
    saved, resumed = (EpochSampler(ITEMS, seed=0, curriculum=curriculum()) for _ in range(2))
    for item in saved.next(3):
        saved.record(item, length=1.0, pass_rate=1.0)
    resumed.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    assert resumed.state_dict() == saved.state_dict()
    assert resumed.next(6) == saved.next(6) != EpochSampler(ITEMS, seed=0).next(9)[3:]


def test_a_curriculum_may_start_at_a_resume():
    saved = EpochSampler(ITEMS, seed=0)
    saved.next(3)
    resumed = EpochSampler(ITEMS, seed=0, curriculum=curriculum())
    resumed.load_state_dict(saved.state_dict())
    assert resumed.next(6) == saved.next(6)


def test_there_is_none_unless_a_range_is_set():
    assert Curriculum.of(CurriculumConfig()) is None
    assert "curriculum" not in EpochSampler(ITEMS, seed=0).state_dict()
    assert list(CurriculumConfig(pass_rate=(0.9, 0.1)).faults("data.curriculum.")) == [
        "data.curriculum.pass_rate=[0.9, 0.1]: must be two shares in rising order, as in [0.05,0.95]."
    ]
