"""W&B's own environment variables, and the settings that win over them."""

import pytest

from grpo_cli.choices import WandbMode
from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import check_tracker, tracker_mode, tracker_names
from grpo_cli.errors import ConfigError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No W&B variables except those that a test sets."""
    for name in ("PROJECT", "NAME", "RUN_GROUP", "JOB_TYPE", "MODE", "DISABLED"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    return lambda **values: [monkeypatch.setenv(f"WANDB_{name}", value) for name, value in values.items()]


def test_without_variables_the_group_is_the_runs_name_and_the_project_is_r1zero():
    names = tracker_names(LoggerConfig(), "run", "train")
    assert names == {"name": "run", "project": "r1zero", "entity": None, "group": "run", "job_type": "train"}


def test_variables_name_the_run_but_settings_win(environment):
    environment(PROJECT="p", NAME="n", RUN_GROUP="g", JOB_TYPE="j")
    names = tracker_names(LoggerConfig(), "run", "train")
    assert names == {"name": "n", "project": "p", "entity": None, "group": "g", "job_type": "j"}
    given = tracker_names(LoggerConfig(project="mine", group="own", entity="team"), "run", "train")
    assert (given["project"], given["group"], given["entity"]) == ("mine", "own", "team")


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        ({}, WandbMode.auto, "auto"),
        ({"MODE": "offline"}, WandbMode.auto, "offline"),
        ({"MODE": "dryrun"}, WandbMode.auto, "offline"),
        ({"MODE": "run"}, WandbMode.auto, "online"),
        ({"MODE": "Disabled"}, WandbMode.auto, "disabled"),
        ({"DISABLED": "true"}, WandbMode.auto, "disabled"),
        ({"DISABLED": "true", "MODE": "online"}, WandbMode.auto, "disabled"),
        ({"DISABLED": "false", "MODE": "online"}, WandbMode.auto, "online"),
        ({"DISABLED": "true", "MODE": "disabled"}, WandbMode.offline, "offline"),
    ],
)
def test_the_mode_comes_from_the_settings_otherwise_from_the_environment(environment, values, setting, expected):
    environment(**values)
    assert tracker_mode(LoggerConfig(mode=setting)) == expected


@pytest.mark.parametrize(
    ("mode", "seen"), [("", "WANDB_MODE is set but empty"), ("ofline", "WANDB_MODE=ofline: unknown mode")]
)
def test_an_unknown_wandb_mode_is_rejected_if_it_would_decide(environment, mode, seen):
    environment(MODE=mode)
    with pytest.raises(ConfigError, match=rf"{seen}.*online, run, offline, dryrun, disabled.*logger\.mode"):
        check_tracker(LoggerConfig())
    check_tracker(LoggerConfig(mode=WandbMode.offline))
    check_tracker(LoggerConfig(trackers=[]))
