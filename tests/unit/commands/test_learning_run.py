"""What is checked in a run folder before the ranks of a resumed run start."""

import pytest
from omegaconf import OmegaConf

from grpo_cli.commands import learning_run
from grpo_cli.commands.learning_run import _check_metrics
from grpo_cli.config.grammar import resuming
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import frozen_text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"step": 0}\n\x00\x00\x00\n', "line 2 is not JSON"),
        (b'{"step": 0}\n{"reward/mean": 1}\n', "line 2 has no step"),
        (b'{"step": 0}\n\xff\n', "line 2 is not UTF-8"),
        (b"[1]\n", "line 1: "),
    ],
)
def test_damaged_metrics_are_reported_before_anything_is_started(tmp_path, content, fault):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{fault}.*Resuming does not need it: remove the line"):
        _check_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("content", [b"", b'{"step": 0}\n{"step": 1, "rew'])
def test_metrics_that_are_empty_or_end_in_half_a_line_are_accepted(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    _check_metrics(tmp_path / "metrics.jsonl")
    _check_metrics(tmp_path / "nothing")


def test_the_suggested_argument_is_quoted_for_the_shell_and_for_hydra(tmp_path):
    assert resuming(tmp_path / "run") == f"resume={tmp_path}/run"
    assert resuming(tmp_path / "a [1]") == f"""'resume="{tmp_path}/a [1]"'"""


def test_a_damaged_a_changed_and_an_unsigned_config_yaml_are_told_apart(compose_train, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_run, "in_sweep", lambda: False)
    monkeypatch.setattr(learning_run, "place_in_sweep", lambda composed: None)
    monkeypatch.setattr(learning_run, "given_keys", list)

    def settings(*overrides):
        composed = OmegaConf.structured(compose_train("resume.run=auto", f"run.dir={tmp_path}", *overrides))
        return learning_run.settings("train", composed)

    file = tmp_path / "config.yaml"
    file.write_text("run: [")
    with pytest.raises(CheckpointError, match="is damaged"):
        settings()
    file.write_text(frozen_text(compose_train(f"run.dir={tmp_path}")))
    assert settings().run.dir == str(tmp_path)
    with pytest.raises(ConfigError, match=r"algorithm\.epsilon: "):
        settings("algorithm.epsilon=0.3")
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(CheckpointError, match="not signed by this account"):
        settings()
    assert settings("resume.trust=true", "seed=1").resume.trust
