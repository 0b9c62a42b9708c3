"""The end of a training step: evaluation, log, check, stop and checkpoint."""

import pytest
from kept_groups import group
from rich.console import Console

from grpo_cli import stop
from grpo_cli.errors import TrainingError
from grpo_cli.evaluation.live import Evaluated
from grpo_cli.metrics.clock import Clock
from grpo_cli.metrics.metrics import Tally
from grpo_cli.runs.rollouts import KeptGroup
from grpo_cli.training.loop import finish_step
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

pytestmark = pytest.mark.usefixtures("one_rank")
STEPS = 6
QUIET = Console(quiet=True)
FOLLOWED = ScoredGroup(
    Prompt(Problem("p", "", ""), "", (1,)), (Completion((), (), "", False),), (Score(0.0, {}, Verdict.wrong, None),)
)


class Recorder:
    """A log and checkpoints that record their calls."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.must_save: dict[int, bool] = {}
        self.groups: list[KeptGroup] = []

    def log(self, step, metrics, groups, values):
        self.rows[step] = metrics
        self.groups += groups
        self.values = values

    def maybe_save(self, step, learner, sampler, metrics, *, must):
        self.must_save[step] = must

    def times(self):
        return {"time/checkpoint": 0.5}


class Sampler:
    def metrics(self):
        return {"epoch": 0.25}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def finish(step: int, recorder: Recorder, console: Console = QUIET, **options) -> bool:
    tally, clock = Tally(), Clock()
    tally.sum("perf/trained_tokens", 10)
    clock.add("update", 2.0)
    tally.spread("length", [3, 5])
    evaluated = Evaluated({"eval/heldout/avg": 0.5}, [FOLLOWED])
    required = {"evaluate": lambda: evaluated, "learner": None, "sampler": Sampler(), "console": console}
    return finish_step(
        step, STEPS, tally, clock, eval_every=2, log=recorder.log, checkpoints=recorder, **required, **options
    )


def test_a_checkpoint_that_takes_long_is_shown(recorder, shown, monkeypatch):
    monkeypatch.setattr(recorder, "maybe_save", lambda *_, **__: shown.wait_for("step 4: saving ..."))
    finish(4, recorder, Console(file=shown))


def test_a_step_is_evaluated_if_it_is_due_or_the_last(recorder):
    for step in (1, 4, 5, STEPS):
        assert not finish(step, recorder)
    assert [step for step, row in recorder.rows.items() if "eval/heldout/avg" in row] == [4, STEPS]
    assert [step for step, row in recorder.rows.items() if "time/eval" in row] == [4, STEPS]
    assert recorder.must_save == {1: False, 4: False, 5: False, STEPS: True}


def test_the_groups_of_a_step_and_of_its_evaluation_are_logged_together(recorder):
    finish(3, recorder, groups=[group(3)])
    finish(4, recorder, groups=[group(4)])
    assert [(kept.step, kept.split, kept.problem) for kept in recorder.groups] == [
        (3, "train", "3-1-1-1"), (4, "train", "3-1-1-1"), (4, "heldout", "p"),
    ]  # fmt: skip


def test_metrics_have_speeds_and_what_the_loop_adds(recorder):
    finish(1, recorder)
    assert recorder.rows[1]["perf/training_tokens_per_s"] == 5
    assert recorder.rows[1]["epoch"] == 0.25
    assert recorder.rows[1]["time/checkpoint"] == 0.5
    assert recorder.values == {"length": [3, 5]}


def test_a_run_that_is_asked_to_stop_saves_the_step_and_stops_unless_it_is_the_last(recorder, monkeypatch):
    monkeypatch.setattr(stop, "is_requested", lambda: True)
    assert finish(3, recorder)
    assert not finish(STEPS, recorder)
    assert recorder.must_save == {3: True, STEPS: True}


def test_a_step_whose_metrics_fail_the_check_is_logged_but_not_saved(recorder):
    def check(metrics):
        raise TrainingError("a fault")

    with pytest.raises(TrainingError, match="a fault"):
        finish(STEPS, recorder, check=check)
    assert list(recorder.rows) == [STEPS]
    assert recorder.must_save == {}
