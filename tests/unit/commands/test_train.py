"""What `r1zero train` checks before it starts a rank."""

import json

import pytest

from grpo_cli.commands import train
from grpo_cli.errors import CheckpointError, ConfigError


@pytest.fixture
def start(monkeypatch, tmp_path, compose_train):
    """A function of overrides that starts a run on 20 rows with a hint, up to its ranks; it returns what they get."""
    rows = [{"id": n, "problem": f"{n}+{n}?", "answer": 2 * n, "hint": "add"} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rewards.py").write_text("def timed(completions, hint, **columns): return []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.learning_run, "settings", lambda command, composed: composed)
    monkeypatch.setattr(train.learning_run, "run_in_folder", lambda command, config, *_: {"eval/heldout/avg": config})
    monkeypatch.setattr(train, "given_keys", lambda: ["data.path"])
    monkeypatch.setattr(train, "in_sweep", lambda: False)

    def started(*overrides):
        return train.run(compose_train("data=file", "data.path=train.jsonl", "data.num_heldout=2", *overrides))

    return started


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["+reward.terms.mine.function=rewards.py:timed"], r"needs hint\. .* Set data\.columns\.extra=\[hint\]"),
        (["+reward.terms.mine.function=rewards.py:absent"], r"mine\.function=rewards\.py:absent: cannot be imported"),
    ],
)
def test_a_function_that_cannot_score_the_data_is_an_error_before_the_ranks_start(start, overrides, fault):
    with pytest.raises(ConfigError, match=fault):
        start(*overrides)


def test_with_its_columns_a_function_is_accepted(start):
    config = start("+reward.terms.mine.function=rewards.py:timed", "data.columns.extra=[hint]")
    assert config.data.columns.extra == ["hint"]
    assert start("+reward.terms.mine.function=rewards.py:timed", "data.columns.extra=all").data.columns.extra == "all"


def test_a_folder_that_cannot_be_replayed_is_an_error_before_the_ranks_start(start):
    with pytest.raises(CheckpointError, match="nothing holds no run"):
        start("replay=nothing")


def test_a_run_that_has_finished_is_not_started_again(start, tmp_path, capsys):
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/result.json").write_text(json.dumps({"step": 4, "eval/heldout/avg": 0.5}))
    assert start("run.dir=run", "resume.run=auto", "steps=4") == 0.5
    assert (
        "run has already finished its 4 steps. To train longer: r1zero train resume=run steps=8"
        in capsys.readouterr().out
    )
    assert start("run.dir=run", "resume.run=auto", "steps=5").steps == 5
    (tmp_path / "run/model").rmdir()
    assert start("run.dir=run", "resume.run=auto", "steps=4").steps == 4
