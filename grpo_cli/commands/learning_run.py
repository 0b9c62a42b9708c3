"""Shared by the commands that train a model: checked settings of a new or resumed run, and starting its ranks."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from grpo_cli.analysis.report import read_metrics, read_result
from grpo_cli.commands.hydra_job import given_keys, in_sweep, needs_new_folder, place_in_sweep
from grpo_cli.commands.start_checks import check_start
from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.grammar import resuming
from grpo_cli.errors import CheckpointError, ConfigError, DataError
from grpo_cli.launch import start
from grpo_cli.printing import say
from grpo_cli.runs.folder import is_unused, new_folder, run_folder_lock
from grpo_cli.runs.frozen import check_no_missing_secrets, check_trusted
from grpo_cli.runs.resume import check_resumed, resumed_settings, settings_in, whole_checkpoints


def settings(command: str, composed: DictConfig) -> Any:
    """The typed and checked settings of a new or resumed run, or of one job of a sweep.

    A job of a sweep that is started again, or a job that Slurm requeued, resumes from its last checkpoint.
    """
    if in_sweep() and composed.resume.run not in ("never", "auto"):
        raise ConfigError("resume=<run folder> resumes one run. To resume a sweep, set hydra.sweep.dir=<its folder>.")
    place_in_sweep(composed)
    _check_same_folder(composed)
    resumed = resumed_settings(composed, given_keys(), command)
    if composed.resume.run not in ("never", "auto"):
        frozen = Path(composed.resume.run).expanduser() / "config.yaml"
        check_trusted(frozen, "resume.trust", composed.resume.trust)
        check_no_missing_secrets(resumed, frozen)
    config = to_typed(resumed, command)
    check_settings(config)
    check_start(config)
    if in_sweep() or "SLURM_RESTART_COUNT" in os.environ:
        config.resume.run = "auto"  # without a checkpoint, it starts from step 0
    if config.resume.run != "never":
        file = Path(config.run.dir) / "config.yaml"
        if file.is_file():
            settings_in(file, command)  # first, since a damaged file would only be reported as not signed
            check_trusted(file, "resume.trust", config.resume.trust)
        for note in check_resumed(config, command):
            say(f"warning: {note}; from here on, results are the same only up to rounding")
        _check_metrics(Path(config.run.dir) / "metrics.jsonl")
        if composed.resume.run not in ("never", "auto") and not whole_checkpoints(Path(config.run.dir)):
            say(f"{config.run.dir} has no complete checkpoint: the run starts from step 0")
    return config


def _check_same_folder(composed: DictConfig) -> None:
    """Raise ConfigError for resume=auto in a folder that is named by the time of the start: it would find no run."""
    unresolved = OmegaConf.to_yaml(composed.run, resolve=False)
    if composed.resume.run == "auto" and "${now:" in unresolved:
        raise ConfigError(
            "resume=auto needs the same run.dir at every start, and the default is new each time. Set run.dir, as in "
            "run.dir=runs/my_run, or give the run to resume: `r1zero runs` lists them with the command for each."
        )


def run_in_folder(command: str, config: Any, composed: DictConfig) -> dict[str, Any]:
    """Run a training command on its ranks, in `run.dir`. Returns the last row of metrics."""
    if needs_new_folder(composed):
        config.run.dir = str(new_folder(Path(config.run.dir)))
    run_dir = Path(config.run.dir)
    with run_folder_lock(run_dir, config, lambda: _check_folder(run_dir, config)) as config_file:
        restarts_engines = command == "train" and config.rollout.restart_engines
        start(command, config_file, config.cluster, restarts_engines=restarts_engines)
    result = read_result(run_dir)
    assert result is not None, "a run that ended well leaves its result"
    return result


def _check_metrics(file: Path) -> None:
    """Raise CheckpointError if metrics.jsonl is damaged, before the ranks start and cut it back to the checkpoint."""
    if not file.exists():
        return
    try:
        read_metrics(file)
    except DataError as error:
        raise CheckpointError(f"{error} Resuming does not need it: remove the line, or move the file away.") from error


def _check_folder(run_dir: Path, config: Any) -> None:
    if config.resume.run == "never" and not is_unused(run_dir):
        raise ConfigError(
            f"The run folder {run_dir} exists, and is never overwritten. Set another run.dir, or resume from its last "
            f"checkpoint with {resuming(run_dir)}."
        )
