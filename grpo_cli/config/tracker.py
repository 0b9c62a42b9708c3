"""W&B's mode and names of a run: from the settings, otherwise from W&B's own environment variables."""

import os
from collections.abc import Mapping

from grpo_cli.choices import WandbMode
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import ConfigError

DISABLED = "disabled"
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", DISABLED: DISABLED}  # W&B's
PROJECT = "r1zero"
NOT_SET = ("", "0", "false", "no", "off")


def check_tracker(config: LoggerConfig) -> None:
    """Raise ConfigError if WANDB_MODE decides the mode and has an unknown value."""
    mode = os.environ.get("WANDB_MODE")
    if not config.wandb or config.mode != WandbMode.auto or mode is None or mode.lower() in MODES:
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
