"""The trackers of a run: whether they can be used, and W&B's mode and names, from settings or its own variables."""

import os
from collections.abc import Mapping
from importlib.util import find_spec

from grpo_cli.choices import TrackerName, WandbMode
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import ConfigError

DISABLED = "disabled"
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", DISABLED: DISABLED}  # W&B's
PROJECT = "r1zero"
NOT_SET = ("", "0", "false", "no", "off")


def check_tracker(config: LoggerConfig) -> None:
    """Raise ConfigError if a tracker's package is missing, or if WANDB_MODE decides the mode and is unknown."""
    if missing := [name.value for name in config.trackers if find_spec(name) is None]:
        raise ConfigError(
            f"logger.trackers has {', '.join(missing)}, which is not installed. Install it with `pip install "
            f"{' '.join(missing)}`, or leave it out of logger.trackers."
        )
    if config.upload_model and TrackerName.wandb not in config.trackers:
        raise ConfigError("logger.upload_model=true uploads to W&B. Add wandb to logger.trackers, or leave it out.")
    mode = os.environ.get("WANDB_MODE")
    if TrackerName.wandb not in config.trackers or config.mode != WandbMode.auto:
        return
    if mode is None or mode.lower() in MODES:
        return
    seen = f"WANDB_MODE={mode}: unknown mode" if mode else "WANDB_MODE is set but empty"
    raise ConfigError(f"{seen}. Unset it, set it to one of {', '.join(MODES)}, or give logger.mode=offline.")


def tracker_mode(config: LoggerConfig) -> str:
    """online, offline, disabled, or auto if neither settings nor environment decide: online if there is an API key."""
    if config.mode != WandbMode.auto:
        return config.mode.value
    if os.environ.get("WANDB_DISABLED", "").lower() not in NOT_SET:
        return DISABLED
    return MODES.get(os.environ.get("WANDB_MODE", "").lower(), WandbMode.auto.value)


def tracker_names(config: LoggerConfig, run_name: str, job_type: str) -> Mapping[str, str | None]:
    """Arguments of `wandb.init`: name, project, entity, group and job type. The default group is the run's name."""
    name = os.environ.get("WANDB_NAME") or run_name
    return {
        "name": name,
        "project": config.project or os.environ.get("WANDB_PROJECT") or PROJECT,
        "entity": config.entity,  # if None, W&B uses WANDB_ENTITY or its own default
        "group": config.group or tracker_group() or run_name,  # so that its evaluations are listed next to it
        "job_type": os.environ.get("WANDB_JOB_TYPE") or job_type,
    }


def tracker_group() -> str | None:
    return os.environ.get("WANDB_RUN_GROUP") or None
