"""What may be other when a run goes on, and what is taken from it."""

import pytest
from omegaconf import OmegaConf

from grpo_cli.config.resume import check_resumed, taken_up
from grpo_cli.errors import CheckpointError, ConfigError


@pytest.fixture
def run_dir(tmp_path, compose_train):
    """The folder of a run with epsilon 0.3."""
    config = compose_train("algorithm.epsilon=0.3", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    return tmp_path


@pytest.mark.parametrize(
    "change",
    ["logger=none", "checkpoint.every_steps=7", "run.name=other", "steps=400", "resume.allow=[seed]"],
)
def test_what_changes_nothing_is_free(compose_train, run_dir, change):
    assert check_resumed(compose_train("algorithm.epsilon=0.3", f"run.dir={run_dir}", change), "train") == []


@pytest.mark.parametrize("change", ["cluster.ranks=2", "cluster.zero_stage=2", "cluster.tokens_per_microbatch=64"])
def test_what_only_rounds_otherwise_is_said(compose_train, run_dir, change):
    (note,) = check_resumed(compose_train("algorithm.epsilon=0.3", f"run.dir={run_dir}", change), "train")
    assert note.startswith(change.split("=")[0])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("optimizer.lr=1", "optimizer.lr"),
        ("seed=1", "seed"),
        ("cluster.dtype=bf16", "cluster.dtype"),
        ("eval.every_steps=9", "eval.every_steps"),
        ("reward.terms.brevity.weight=1", "reward.terms.brevity.weight"),
    ],
)
def test_what_would_change_the_run_is_refused_unless_it_is_allowed(compose_train, run_dir, change, key):
    same = ("algorithm.epsilon=0.3", f"run.dir={run_dir}")
    change = f"++{change}"
    with pytest.raises(ConfigError, match=rf"(?s)holds a run of other settings:\n{key}: .*resume\.allow=\[{key}\]"):
        check_resumed(compose_train(*same, change), "train")
    assert check_resumed(compose_train(*same, change, f"resume.allow=[{key}]"), "train") == []


def test_a_run_may_not_be_longer_where_the_learning_rate_knows_its_end(compose_train, tmp_path):
    cosine = ("optimizer.schedule=cosine", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(compose_train(*cosine))))
    with pytest.raises(ConfigError, match="steps: 200 there, 400 now"):
        check_resumed(compose_train(*cosine, "steps=400"), "train")


def test_a_folder_without_a_run_asks_nothing(compose_train, tmp_path):
    assert check_resumed(compose_train(f"run.dir={tmp_path}"), "train") == []


def test_a_named_run_brings_its_settings_but_for_those_that_are_given(compose_train, run_dir):
    composed = OmegaConf.structured(compose_train(f"resume.run={run_dir}", "steps=300", "logger=none"))
    settings = taken_up(composed, ["resume.run", "steps", "logger"], "train")
    assert (settings.algorithm.epsilon, settings.steps, settings.logger.wandb) == (0.3, 300, False)
    assert settings.run.dir == str(run_dir)
    assert settings.seed == 0


def test_what_is_no_run_and_what_would_hide_its_settings_are_refused(compose_train, run_dir, tmp_path):
    composed = OmegaConf.structured(compose_train(f"resume.run={tmp_path / 'nothing'}"))
    with pytest.raises(CheckpointError, match="holds no run"):
        taken_up(composed, ["resume.run"], "train")
    composed = OmegaConf.structured(compose_train(f"resume.run={run_dir}"))
    with pytest.raises(ConfigError, match="Leave it out"):
        taken_up(composed, ["resume.run", "experiment"], "train")
    (run_dir / "config.yaml").write_text("no_such_setting: 1\n")
    with pytest.raises(ConfigError, match="this version of r1zero does not have"):
        taken_up(composed, ["resume.run"], "train")
