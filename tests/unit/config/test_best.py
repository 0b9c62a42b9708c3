"""Which metrics checkpoint.keep_best accepts."""

import pytest

from grpo_cli.config.best import is_better_low, keep_best_faults


@pytest.mark.parametrize(
    ("command", "metric", "overrides"),
    [
        ("train", "eval/heldout/greedy", []),
        ("train", "eval/math500/pass@3", ["benchmark=math500", "eval.n=3", "eval.temperature=1"]),
        ("train", "eval/heldout/language", ["eval.language=en"]),
        ("sft", "eval/heldout/loss", []),
        ("sft", "eval/make_zero/avg", []),
        ("reward-model", "eval/heldout/pair_accuracy", []),
    ],
)
def test_a_metric_of_the_runs_evaluations_is_accepted(compose_as, command, metric, overrides):
    config = compose_as(command, *overrides, f"checkpoint.keep_best={metric}")
    assert list(keep_best_faults(config.checkpoint, config.evaluation_metrics())) == []


@pytest.mark.parametrize(
    ("command", "metric", "instead"),
    [
        ("train", "eval/heldout/accuracy", "eval/heldout/avg"),
        ("train", "eval/math500/avg", "eval/heldout/avg"),  # not a benchmark of this run
        ("train", "eval/heldout/pass@8", "eval/heldout/avg"),  # held-out problems are sampled once
        ("sft", "eval/heldout/avg", "eval/heldout/loss"),
        ("reward-model", "eval/heldout/avg", "eval/heldout/pair_accuracy"),
    ],
)
def test_a_metric_that_no_evaluation_has_is_rejected(compose_as, command, metric, instead):
    config = compose_as(command, f"checkpoint.keep_best={metric}")
    (fault,) = keep_best_faults(config.checkpoint, config.evaluation_metrics())
    assert fault.startswith(f"checkpoint.keep_best={metric}: this run's evaluations have no such metric")
    assert f"Set checkpoint.keep_best={instead}" in fault


def test_a_higher_accuracy_and_a_lower_loss_are_better(compose_as):
    assert not is_better_low(compose_as("train").evaluation_metrics()[0])
    assert is_better_low("eval/heldout/loss")
