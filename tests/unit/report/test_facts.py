"""The facts of a run: verdict, settings, curves."""

import json
import re
import shlex
from pathlib import Path

import pytest
from report_run import learning_groups, learning_rows, metrics_row, write_run

from grpo_cli.config.compose import flat_settings
from grpo_cli.config.overrides import allow_new_entries
from grpo_cli.report.curves import MAX_ROWS, curves
from grpo_cli.report.facts import run_facts
from grpo_cli.report.page import collect
from grpo_cli.report.settings import algorithms, describe
from grpo_cli.report.verdict import verdict
from grpo_cli.runs.listing import State

METRIC = "eval/heldout/avg"


def rows_to(after: float, *, reward: float | None = None) -> list[dict[str, float]]:
    """20 steps whose accuracy goes from 0.2 to `after`; the training reward to `reward`."""
    last = after if reward is None else reward
    steps = [metrics_row(step, 0.2 + (last - 0.2) * step / 20) for step in range(1, 20)]
    return [metrics_row(0, 0.2, evaluated=True), *steps, metrics_row(20, last) | metrics_row(20, after, evaluated=True)]


@pytest.mark.parametrize(
    ("rows", "answer", "headline"),
    [
        (rows_to(0.8), "yes", "It is learning: held-out accuracy rose from 20.0 % to 80.0 %."),
        (rows_to(0.1), "worse", "It got worse: held-out accuracy fell from 20.0 % to 10.0 %."),
        (rows_to(0.22), "no", "It is not learning: held-out accuracy went from 20.0 % to 22.0 %, which may be chance."),
        (rows_to(0.2), "no", "It is not learning: held-out accuracy stayed at 20.0 %."),
        (rows_to(0.22, reward=0.6), "unclear", "Not clear yet: the training reward rises, but"),
        (
            [rows_to(0.22)[0], *rows_to(0.22)[2:]],
            "early",
            "Too early to tell after 19 steps: held-out accuracy went from",
        ),
        (rows_to(0.8)[:-1], "early", "Too early to tell: no evaluation yet after training."),
        ([], "early", "Too early to tell: there is no evaluation yet after training."),
    ],
)
def test_the_verdict_needs_a_difference_that_chance_does_not_explain(rows, answer, headline):
    said = verdict(rows, METRIC)
    assert said["answer"] == answer
    assert said["headline"].startswith(headline)


def test_a_loss_that_falls_is_learning():
    rows = [{"step": 0, "eval/heldout/loss": 2.0}, {"step": 5, "eval/heldout/loss": 1.0}]
    assert verdict(rows, "eval/heldout/loss")["headline"] == "It is learning: held-out loss fell from 2.000 to 1.000."


def test_the_verdict_names_a_better_step():
    rows = [*rows_to(0.9), metrics_row(30, 0.6, evaluated=True)]
    assert "It was better at step 20 (90.0 %)." in verdict(rows, METRIC)["reasons"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=qwen2_5_math_1_5b", "template=qwen_math", "data=math_12k", "cluster=gpu_1", "algorithm=dr_grpo"],
        ["template.text='{problem} =\\n'", "~reward.terms.format", "reward.terms.accuracy.weight=2", "steps=50"],
        ["algorithm=ppo", "algorithm.advantage.gae_lambda=0.95", "critic.lr=1e-3"],
    ],
)
def test_the_command_that_repeats_a_run_composes_its_settings(compose_as, overrides):
    config = compose_as("train", *overrides)
    program, command, *again = shlex.split(describe(config, "train")["repeat"])
    assert (program, command) == ("r1zero", "train")
    assert flat_settings(compose_as("train", *allow_new_entries("train", again))) == flat_settings(config)
    assert len(again) <= len(overrides)


def test_changes_are_those_from_the_defaults(compose_as):
    described = describe(compose_as("train", "algorithm=dr_grpo", "steps=50"), "train")
    assert described["options"]["algorithm"] == "dr_grpo"
    assert {"key": "steps", "value": 50, "default": 200} in described["changes"]
    assert {"key": "algorithm.weighting", "value": "constant", "default": "sequence_mean"} in described["changes"]


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp_baseline"])
def test_methods_have_the_settings_of_their_files(compose_as, name):
    settings, algorithm = algorithms()[name], compose_as("train", f"algorithm={name}").algorithm
    assert settings["baseline"] == algorithm.advantage.baseline.value
    assert settings["whiten"] == algorithm.advantage.whiten
    assert settings["weighting"] == algorithm.weighting.value


def test_every_key_of_the_document_is_in_its_docs(tmp_path, compose_as):
    file = Path(__file__).parents[3] / "docs" / "report.md"
    folders = [
        write_run(tmp_path / name, compose_as("train", "steps=20"), learning_rows(), learning_groups())
        for name in ("first", "second")
    ]
    document, _ = collect(folders)
    (run, _) = document["runs"]
    parts = [document, run, document["comparison"], run["run"], run["verdict"], run["curves"], run["figures"][0]]
    parts += [run["aids"], run["cost"]]
    keys = {key for part in parts for key in part}
    described = set(re.findall(r"`(\w+)(?:\[\])?`", file.read_text()))
    assert keys - described == set()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [("grpo", [0.8, 1.2]), ("dapo", [0.8, 1.28]), ("cispo", [None, 5]), ("gspo", None), ("reinforce", None)],
)
def test_the_bounds_of_a_tokens_ratio_are_those_of_the_method(tmp_path, compose_as, name, bounds):
    folder = write_run(tmp_path / "first", compose_as("train", f"algorithm={name}"), learning_rows(), [])
    assert run_facts(folder)["advantage"]["clip"] == bounds


def test_a_method_with_a_critic_or_a_teacher_cannot_be_computed_on_the_page():
    assert not {"ppo", "on_policy_distillation"} & set(algorithms())


def test_a_long_run_shows_some_steps_and_every_evaluation():
    rows = [metrics_row(step, 0.5, evaluated=step == 101) for step in range(4 * MAX_ROWS)]
    shown = curves(rows)
    assert len(shown["steps"]) <= MAX_ROWS + 2
    assert {0, 101, 4 * MAX_ROWS - 1} <= set(shown["steps"])


def test_a_curve_that_is_always_zero_is_left_out():
    panels = {
        panel["title"] for panel in curves([{"step": 1, "policy/clip_low": 0.0, "policy/entropy": 1.0}])["panels"]
    }
    assert panels == {"Entropy, nats per token"}


def test_each_term_of_the_reward_has_its_curve():
    (panel,) = curves([{"step": 1, "reward/mean": 1.1, "reward/max": 2.0, "reward_term/format/mean": 1.0}])["panels"]
    assert [curve["label"] for curve in panel["series"]] == ["total", "format"]


def test_the_facts_of_a_run(tmp_path, compose_as):
    folder = write_run(tmp_path / "first", compose_as("train", "steps=20"), learning_rows(), learning_groups())
    (folder / "health.jsonl").write_text('{"step": 4, "name": "n", "words": "w", "fix": "f"}\n')
    code = {"version": "0.1.0", "commit": "c" * 40, "changed": False}
    (folder / "code.json").write_text(json.dumps([code]))
    facts = run_facts(folder)
    assert facts["run"]["code"] == [code]
    assert facts["run"]["state"] == "finished"
    assert facts["run"]["tokens"] == 2000
    assert facts["findings"] == [{"step": 4, "name": "n", "words": "w", "fix": "f"}]
    assert facts["verdict"]["after"] == {"step": 20, "value": 0.8, "low": 0.76, "high": 0.8400000000000001}
    assert run_facts(folder, State.running)["run"]["state"] == "running"
