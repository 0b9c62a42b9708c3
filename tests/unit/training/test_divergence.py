"""Metrics that show a divergence, and metrics that do not."""

import math

import pytest

from grpo_cli.training.divergence import divergence


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"policy/grad_norm": 0.0, "policy/entropy": 0.0, "policy/loss": -3.0, "policy/skipped_steps": 0.0},
        {"policy/grad_norm": 900.0, "policy/entropy": 11.9, "policy/kl_ref": 50.0, "policy/loss": 1e5},
        {"eval/heldout/length_correct": math.nan, "reward/mean": math.nan},  # does not depend on the weights
    ],
)
def test_metrics_of_healthy_runs_are_no_divergence(metrics):
    assert divergence(metrics) is None


@pytest.mark.parametrize(
    ("metrics", "fault"),
    [
        ({"policy/grad_norm": math.nan}, "policy/grad_norm is nan"),
        ({"policy/grad_norm": 2e4}, "policy/grad_norm is 20000"),
        ({"policy/entropy": 25.0}, "policy/entropy is 25"),
        ({"policy/kl_ref": -math.inf}, "policy/kl_ref is -inf"),
        ({"policy/loss": math.inf}, "policy/loss is inf"),
        ({"policy/skipped_steps": 2.0}, "the gradient of 2 optimizer steps was not finite"),
    ],
)
def test_divergence_names_the_metric_that_shows_it(metrics, fault):
    assert divergence(metrics) == fault
