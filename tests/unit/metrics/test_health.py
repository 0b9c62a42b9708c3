import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import getsource

import pytest
from omegaconf import OmegaConf

from grpo_cli.metrics import health as health_module
from grpo_cli.metrics.health import LONG_WINDOW, WINDOW, Health
from grpo_cli.reward.terms import BUILT_IN

# A step of the built-in task.
HEALTHY = {
    "length/truncated": 0.004,
    "group/agreeing": 0.05,
    "group/all_right": 0.01,
    "group/all_wrong": 0.1,
    "policy/entropy": 0.13,
    "policy/kl_ref": 0.02,
    "policy/skipped_steps": 0.0,
    "sampler/logprob_diff_mean": 1e-7,
    "verify/timeout": 0.0,
    "verify/unparsable": 0.3,
    "reward_term/format/mean": 0.93,
    "reward_term/accuracy/mean": 0.27,
}
LIMIT = 1e-4  # for the mismatch


def findings(rows: Sequence[Mapping[str, float]], health: Health | None = None) -> list[tuple[int, str]]:
    """The findings over `rows`, as step and text."""
    health = health or Health(LIMIT)
    return [(int(row["step"]), finding.text) for row in rows for finding in health.update(row)]


def steps(num: int, first: int = 1, **changed: float) -> list[dict[str, float]]:
    """`num` rows of a healthy run with the metrics `changed`; `a__b` is the metric `a/b`."""
    changes = {name.replace("__", "/"): value for name, value in changed.items()}
    return [{"step": step} | HEALTHY | changes for step in range(first, first + num)]


def test_a_healthy_run_gives_no_finding():
    assert findings([{"step": 0, "eval/heldout/avg": 0.2}, *steps(3 * LONG_WINDOW)]) == []


@pytest.mark.parametrize(
    ("symptoms", "value", "setting"),
    [
        ({"length__truncated": 0.97}, "97 % of the responses were cut", "rollout.max_new_tokens"),
        (
            {"group__agreeing": 0.9, "group__all_wrong": 0.88, "group__all_right": 0.02},
            "in 90 % of the groups all responses have the same reward, which gives no gradient (2 % are",
            "algorithm.dynamic_sampling.max_refills",
        ),
        ({"policy__kl_ref": 12.5}, "the KL to the reference is 12.5 nats per token", "algorithm.beta"),
        ({"sampler__logprob_diff_mean": 6e-5}, "differ by 6e-05 on average", "algorithm.sampler_correction.method"),
        ({"verify__timeout": 0.06}, "6 % of the answers were not judged in time", "reward.timeout_s"),
        ({"verify__unparsable": 0.99}, "99 % of the responses have no answer where", "reward.terms.accuracy.marker"),
    ],
)
def test_a_finding_is_reported_once_after_it_was_true_for_a_window(symptoms, value, setting):
    ((step, text),) = findings(steps(4 * WINDOW, **symptoms))
    assert step == WINDOW
    assert value in text
    assert setting in text


@pytest.mark.parametrize(
    "borderline",
    [
        {"length__truncated": 0.49},
        {"group__agreeing": 0.89},
        {"group__agreeing": 1.0, "policy__kl_teacher": 3.0},  # a teacher gives every token a signal
        {"policy__entropy": 0.014},  # from the start, so it did not fall
        {"policy__kl_ref": 0.9},
        {"sampler__logprob_diff_mean": 4.9e-5},
        {"verify__timeout": 0.04},
        {"verify__unparsable": 0.97},
    ],
)
def test_below_its_threshold_nothing_is_reported(borderline):
    assert findings(steps(4 * WINDOW, **borderline)) == []


@pytest.mark.parametrize(
    "symptoms",
    [
        {"length__truncated": 0.5},
        {"group__agreeing": 0.9},
        {"policy__kl_ref": 1.0},
        {"sampler__logprob_diff_mean": 0.5 * LIMIT},
        {"verify__timeout": 0.05},
        {"verify__unparsable": 0.98},
        {"policy__skipped_steps": 1 / WINDOW},
    ],
)
def test_a_value_equal_to_its_threshold_is_a_finding(symptoms):
    assert len(findings(steps(2 * WINDOW, **symptoms))) == 1


@pytest.mark.parametrize(
    "noise",
    [
        {"length__truncated": 1.0},
        {"group__agreeing": 1.0},
        {"policy__entropy": 0.0},
        {"sampler__logprob_diff_mean": 9e-5},
        {"policy__kl_ref": 4.0},
        {"verify__timeout": 0.2},
    ],
)
def test_one_noisy_step_is_no_finding(noise):
    assert findings([*steps(20), *steps(1, first=21, **noise), *steps(20, first=22)]) == []


def test_responses_that_were_cut_before_their_answer_are_one_finding():
    ((_, text),) = findings(steps(4 * WINDOW, length__truncated=0.99, verify__unparsable=0.99))
    assert "cut at the limit" in text


def test_entropy_is_compared_with_its_value_at_the_start():
    ((step, text),) = findings([*steps(10, policy__entropy=0.4), *steps(10, first=11, policy__entropy=0.03)])
    # The mean of five falls below 0.04 when all five are 0.03: (4 * 0.03 + 0.4) / 5 is still 0.104.
    assert step == 15
    assert "fell from 0.4 to 0.03 nats per token" in text
    assert "algorithm.epsilon_high" in text


def test_a_skipped_optimizer_step_is_reported_at_once():
    ((step, text),) = findings([*steps(2), *steps(1, first=3, policy__skipped_steps=1.0), *steps(20, first=4)])
    assert step == 3
    assert "the gradient of 1 optimizer steps was not finite" in text
    assert "optimizer.lr" in text


@pytest.mark.parametrize(
    ("first_half", "second_half", "found"),
    [
        ({}, {}, True),
        ({}, {"reward_term__accuracy__mean": 0.13}, False),  # it changes
        ({"reward_term__format__mean": 0.92}, {}, False),  # the format is still being learned
    ],
)
def test_a_solved_format_with_a_stuck_accuracy_is_a_finding(first_half, second_half, found):
    stuck = {"reward_term__format__mean": 0.98, "reward_term__accuracy__mean": 0.08}
    half = LONG_WINDOW // 2
    seen = findings([*steps(half, **(stuck | first_half)), *steps(half, first=half + 1, **(stuck | second_half))])
    assert [step for step, _ in seen] == [LONG_WINDOW] * found
    if found:
        assert "solved (0.98) and the accuracy has not moved from 0.08 in 100 steps" in seen[0][1]
        assert "reward.terms.format.weight" in seen[0][1]


@pytest.mark.parametrize(
    "stuck",
    [
        {
            "reward_term__format__mean": 0.98,
            "reward_term__accuracy__mean": 0.3,
        },  # may be the best that the problems allow
        {"reward_term__format__mean": 0.5, "reward_term__accuracy__mean": 0.08},
    ],
)
def test_a_stuck_reward_alone_is_no_finding(stuck):
    assert findings(steps(2 * LONG_WINDOW, **stuck)) == []


def test_a_finding_that_went_away_and_came_back_is_reported_again():
    cut = {"length__truncated": 1.0}
    rows = [*steps(10, **cut), *steps(20, first=11), *steps(10, first=31, **cut)]
    # Three of the last five steps make a mean of 0.6.
    assert [step for step, _ in findings(rows)] == [WINDOW, 33]


def test_a_finding_that_flickers_is_reported_once():
    rows = [row for step in range(1, 41) for row in steps(1, first=step, length__truncated=1.0 if step % 2 else 0.0)]
    assert len(findings(rows)) == 1


def test_without_a_mismatch_limit_there_is_no_mismatch_warning():
    assert findings(steps(10, sampler__logprob_diff_mean=3.0), Health()) == []


def test_missing_metrics_are_no_finding():
    assert findings([{"step": step} for step in range(1, 2 * LONG_WINDOW)]) == []


@pytest.mark.parametrize("killed_after", [3, 12, 40])
def test_a_resumed_run_reports_the_same_findings_as_an_uninterrupted_one(killed_after):
    rows = [
        *steps(10, policy__entropy=0.4),
        *steps(30, first=11, policy__entropy=0.03),
        *steps(20, first=41, length__truncated=0.8),
    ]
    resumed = Health(LIMIT)
    before = findings(json.loads(json.dumps(rows[:killed_after])), resumed)
    assert before + findings(rows[killed_after:], resumed) == findings(rows)
    assert len(findings(rows)) == 2


def test_every_setting_in_a_message_exists(compose_train):
    config = OmegaConf.structured(compose_train())
    named = set(
        re.findall(
            r"\b(?:rollout|algorithm|optimizer|cluster|reward|data|template)\.[a-z_.]+[a-z]", getsource(health_module)
        )
    )
    assert len(named) >= 12
    for name in named:
        if name.startswith("reward.terms."):
            term, option = name.removeprefix("reward.terms.").split(".")
            assert option in {field.name for field in fields(BUILT_IN[term])}, name
        else:
            assert OmegaConf.select(config, name, default="missing") != "missing", name


def test_a_loss_near_0_is_explained_once_in_a_note_that_names_no_setting_to_change():
    health = Health(LIMIT)
    found = [finding for row in steps(30, policy__loss=1e-9, reward__group_std=0.4) for finding in health.update(row)]
    (note,) = found
    assert note.fix == ""
    assert "near 0 (1e-09), as it must be with one minibatch" in note.text
    assert findings(steps(30, policy__loss=0.3, reward__group_std=0.4)) == []


def test_a_loss_of_0_without_any_signal_is_not_explained_away():
    health = Health(LIMIT)
    rows = steps(30, policy__loss=0.0, reward__group_std=0.0, group__agreeing=1.0)
    assert {finding.name for row in rows for finding in health.update(row)} == {"equal rewards in groups"}
