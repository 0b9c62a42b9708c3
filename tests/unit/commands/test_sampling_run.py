import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from grpo_cli.choices import KeepRule
from grpo_cli.commands import sampling_run
from grpo_cli.commands.sampling_run import set_model_from_checkpoint
from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.sampling import EvalConfig, SampleConfig
from grpo_cli.config.tasks import EvalTask, SampleTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.folder import run_folder_lock
from grpo_cli.runs.resume import check_same_samples


@pytest.fixture
def run_dir(tmp_path):
    """A run that finished after 3 steps."""
    run_dir = tmp_path / "quickstart"
    (run_dir / "model").mkdir(parents=True)
    (run_dir / "model/config.json").write_text("{}")
    config = TrainConfig(steps=3, template=TemplateConfig(text="Q: {problem}"))
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    (run_dir / "result.json").write_text(json.dumps({"step": 3}))
    return run_dir


@pytest.fixture
def composed_with(monkeypatch):
    """The settings of `r1zero eval checkpoint=...`; `given` are the keys on the command line."""

    def composed_with(checkpoint, given=("checkpoint",)):
        monkeypatch.setattr(sampling_run, "given_keys", lambda: list(given))
        composed = OmegaConf.structured(EvalTask(checkpoint=str(checkpoint)))
        set_model_from_checkpoint(composed)
        return composed

    return composed_with


def test_model_template_and_group_are_those_of_the_run(run_dir, composed_with):
    composed = composed_with(run_dir)
    assert composed.model.path == str(run_dir / "model")
    assert composed.model.name == "quickstart"
    assert composed.template.text == "Q: {problem}"
    assert composed.logger.group == "quickstart"


def test_a_template_on_the_command_line_wins(run_dir, composed_with):
    assert composed_with(run_dir, ["checkpoint", "template"]).template.text == "{problem}"


def test_a_template_that_this_version_cannot_use_is_named(run_dir, composed_with):
    file = run_dir / "config.yaml"
    file.write_text(file.read_text().replace("  text: ", "  txt: ").replace("  chat: false", "  chat: maybe"))
    with pytest.raises(
        CheckpointError, match=r"(?s)template.txt: .*Did you mean template.text\?.*template.chat=maybe: m"
    ):
        composed_with(run_dir)
    assert composed_with(run_dir, ["checkpoint", "template"]).template.text == "{problem}"


def test_a_checkpoint_is_exported_once_and_the_time_that_it_takes_is_shown(tmp_path, monkeypatch, shown):
    checkpoint = tmp_path / "checkpoints/step_000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")

    def export(path):
        shown.wait_for("exporting the model of step_000002 ...")
        (path / "model").mkdir()
        return path / "model"

    monkeypatch.setattr(sampling_run, "check_signed", lambda *_: None)
    monkeypatch.setattr(sampling_run, "Screen", lambda **_: Console(file=shown))
    monkeypatch.setitem(sys.modules, "grpo_cli.training.export", SimpleNamespace(model_folder=export))
    assert sampling_run._exported_model(tmp_path, trust=False) == checkpoint / "model"
    monkeypatch.setitem(sys.modules, "grpo_cli.training.export", None)  # an import of it would fail
    assert sampling_run._exported_model(tmp_path, trust=False) == checkpoint / "model"


def test_the_model_of_an_unfinished_run_is_that_of_its_last_checkpoint(run_dir, composed_with, monkeypatch):
    (run_dir / "result.json").write_text(json.dumps({"step": 2}))  # from an earlier, shorter run
    monkeypatch.setattr(sampling_run, "_exported_model", lambda path, trust: path / "checkpoints/step_000002/model")
    assert composed_with(run_dir).model.path.endswith("step_000002/model")


def test_any_model_folder_is_accepted(tmp_path, composed_with):
    (tmp_path / "config.json").write_text("{}")
    assert composed_with(tmp_path).model.path == str(tmp_path)


def test_a_missing_folder_that_looks_like_a_hub_id_is_one(composed_with):
    assert composed_with("Qwen/Qwen2.5-Math-7B").model.path == "Qwen/Qwen2.5-Math-7B"
    for path in ("runs/2026/x", "./run", "run", "tests/run"):
        with pytest.raises(CheckpointError, match="there is no such folder"):
            composed_with(path)


def test_a_folder_without_a_model_is_rejected(tmp_path, composed_with):
    with pytest.raises(CheckpointError, match="is neither a run"):
        composed_with(tmp_path)


def test_settings_that_do_not_change_samples_may_differ_at_a_second_start(tmp_path):
    config = EvalTask(eval=EvalConfig(n=8, temperature=1.0))
    config.model.name = config.model.path = config.run.dir = "x"
    with run_folder_lock(tmp_path, config, lambda: check_same_samples(config, tmp_path)):
        pass
    check_same_samples(
        replace(config, eval=EvalConfig(n=16, temperature=1.0), logger=LoggerConfig(trackers=[])), tmp_path
    )
    with pytest.raises(ConfigError, match=r"eval\.temperature: 1\.0 in the folder, 0\.5 now") as raised:
        check_same_samples(replace(config, seed=1, eval=EvalConfig(n=8, temperature=0.5)), tmp_path)
    assert "seed: 0 in the folder, 1 now" in str(raised.value)


def test_at_a_second_start_rules_may_differ_but_sampling_may_not(tmp_path):
    config = SampleTask(sample=SampleConfig(n=8))
    config.model.name = config.model.path = config.run.dir = config.data.name = "x"
    with run_folder_lock(tmp_path, config, lambda: check_same_samples(config, tmp_path)):
        pass
    rules = SampleConfig(n=16, num_problems=9, keep=[KeepRule.well_formed], max_tokens=9, per_problem=1)
    check_same_samples(replace(config, sample=rules, to="other.jsonl"), tmp_path)
    for key, value in {"temperature": 0.5, "top_p": 0.5, "max_new_tokens": 9}.items():
        with pytest.raises(ConfigError, match=rf"sample\.{key}: .* now"):
            check_same_samples(replace(config, sample=replace(config.sample, **{key: value})), tmp_path)
