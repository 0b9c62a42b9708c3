import json
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from grpo_cli.choices import KeepRule
from grpo_cli.commands import sampling_run
from grpo_cli.commands.sampling_run import take_checkpoint
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
    """A run that came to its end after 3 steps."""
    run_dir = tmp_path / "quickstart"
    (run_dir / "model").mkdir(parents=True)
    (run_dir / "model/config.json").write_text("{}")
    config = TrainConfig(steps=3, template=TemplateConfig(text="Q: {problem}"))
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    (run_dir / "result.json").write_text(json.dumps({"step": 3}))
    return run_dir


@pytest.fixture
def taken(monkeypatch):
    """What `r1zero eval checkpoint=...` goes on with; `given` are the keys on the command line."""

    def take(checkpoint, given=("checkpoint",)):
        monkeypatch.setattr(sampling_run, "given_keys", lambda: list(given))
        composed = OmegaConf.structured(EvalTask(checkpoint=str(checkpoint)))
        take_checkpoint(composed)
        return composed

    return take


def test_a_run_gives_its_model_its_template_and_its_group(run_dir, taken):
    composed = taken(run_dir)
    assert composed.model.path == str(run_dir / "model")
    assert composed.model.name == "quickstart"
    assert composed.template.text == "Q: {problem}"
    assert composed.logger.group == "quickstart"


def test_a_template_that_is_given_stays(run_dir, taken):
    assert taken(run_dir, ["checkpoint", "template"]).template.text == "{problem}"


def test_a_run_that_is_still_going_gives_its_last_checkpoint(run_dir, taken, monkeypatch):
    (run_dir / "result.json").write_text(json.dumps({"step": 2}))  # of an earlier, shorter run
    monkeypatch.setattr(sampling_run, "_exported_model", lambda path, trust: path / "checkpoints/step_000002/model")
    assert taken(run_dir).model.path.endswith("step_000002/model")


def test_a_model_folder_of_any_origin_will_do(tmp_path, taken):
    (tmp_path / "config.json").write_text("{}")
    assert taken(tmp_path).model.path == str(tmp_path)


def test_what_is_no_folder_is_a_hub_id_if_it_looks_like_one(taken):
    assert taken("Qwen/Qwen2.5-Math-7B").model.path == "Qwen/Qwen2.5-Math-7B"
    for path in ("runs/2026/x", "./run", "run", "tests/run"):
        with pytest.raises(CheckpointError, match="there is no such folder"):
            taken(path)


def test_a_folder_without_a_model_is_refused(tmp_path, taken):
    with pytest.raises(CheckpointError, match="is neither a run"):
        taken(tmp_path)


def test_settings_that_change_no_sample_may_differ_at_a_second_start(tmp_path):
    config = EvalTask(eval=EvalConfig(n=8, temperature=1.0))
    config.model.name = config.model.path = config.run.dir = "x"
    with run_folder_lock(tmp_path, config, lambda: check_same_samples(config, tmp_path)):
        pass
    check_same_samples(
        replace(config, eval=EvalConfig(n=16, temperature=1.0), logger=LoggerConfig(wandb=False)), tmp_path
    )
    with pytest.raises(ConfigError, match=r"eval\.temperature: 1\.0 there, 0\.5 now") as raised:
        check_same_samples(replace(config, seed=1, eval=EvalConfig(n=8, temperature=0.5)), tmp_path)
    assert "seed: 0 there, 1 now" in str(raised.value)


def test_rules_may_differ_at_a_second_start_and_how_it_samples_may_not(tmp_path):
    config = SampleTask(sample=SampleConfig(n=8))
    config.model.name = config.model.path = config.run.dir = config.data.name = "x"
    with run_folder_lock(tmp_path, config, lambda: check_same_samples(config, tmp_path)):
        pass
    rules = SampleConfig(n=16, num_problems=9, keep=[KeepRule.well_formed], max_tokens=9, per_problem=1)
    check_same_samples(replace(config, sample=rules, to="other.jsonl"), tmp_path)
    for key, value in {"temperature": 0.5, "top_p": 0.5, "max_new_tokens": 9}.items():
        with pytest.raises(ConfigError, match=rf"sample\.{key}: .* now"):
            check_same_samples(replace(config, sample=replace(config.sample, **{key: value})), tmp_path)
