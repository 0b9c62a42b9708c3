"""What may differ between the start of a run and its resumption.

A run goes on with the settings that it was started with, in `<run folder>/config.yaml`. Kept free of torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.compose import flat_settings
from grpo_cli.config.schema import SCHEMAS, Schedule
from grpo_cli.errors import CheckpointError, ConfigError

# None of it changes what is learned.
FREE = ("run.", "resume.", "logger.", "checkpoint.", "cluster.slurm.", "cluster.gpu.", "cluster.memory_gib.")
ROUNDING = ("cluster.",)  # memory and speed: the same mathematics, added up in another order
NOT_ROUNDING = ("cluster.device", "cluster.dtype")


def frozen_settings(run_dir: Path, command: str) -> DictConfig:
    """The settings that the run of `command` was started with.

    Raises CheckpointError where there is no run, and ConfigError where this version does not know its settings.
    """
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{run_dir} holds no run (no config.yaml). Give the folder of a run, as in runs/...")
    try:
        return OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), OmegaConf.load(file))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{file} has settings that this version of r1zero does not have: {error}\nGo on with the version that "
            "wrote it, or mend the file."
        ) from error


def taken_up(composed: DictConfig, given: Sequence[str], command: str) -> DictConfig:
    """The settings of the run that `resume.run` names, but for what is `given` on the command line.

    `composed` is what the command line would make of a new run, `given` the keys and groups that stand on it. A run
    that is not named by its folder is composed as it stands.
    """
    if composed.resume.run in ("never", "auto"):
        return composed
    if "experiment" in given:
        raise ConfigError(
            f"experiment= sets many settings, and resume={composed.resume.run} brings all of its run. Leave it out."
        )
    settings = frozen_settings(Path(composed.resume.run).expanduser(), command)
    for key in given:
        if not f"{key}.".startswith(("hydra.", "run.dir.")) and "/" not in key:
            OmegaConf.update(settings, key, OmegaConf.select(composed, key), merge=False, force_add=True)
    settings.run.dir = composed.resume.run
    return settings


def check_resumed(config: Any, command: str) -> list[str]:
    """What will be other than it was in the run that this one goes on with, where that is only rounding.

    Raises ConfigError where a setting would change what is learned, unless `resume.allow` names it.
    """
    run_dir = Path(config.run.dir)
    if not (run_dir / "config.yaml").is_file():
        return []
    there, now = flat_settings(frozen_settings(run_dir, command)), flat_settings(OmegaConf.structured(config))
    free = (*FREE, *(f"{key}." for key in config.resume.allow))
    if config.optimizer.schedule == Schedule.constant:
        free += ("steps.", "epochs.")  # a run may be made longer: nothing that was done depends on where it ends
    changed = {
        key: f"{key}: {there.get(key, 'nothing')} there, {now.get(key, 'nothing')} now"
        for key in sorted(there.keys() | now.keys())
        if there.get(key) != now.get(key) and not f"{key}.".startswith(free)
    }
    rounding = {key for key in changed if key.startswith(ROUNDING) and key not in NOT_ROUNDING}
    if refused := changed.keys() - rounding:
        raise ConfigError(
            f"{run_dir} holds a run of other settings:\n"
            + "\n".join(changed[key] for key in sorted(refused))
            + "\nGive the settings of that run (resume=<its folder> takes them all) or another run.dir. To change them "
            f"on purpose: resume.allow=[{','.join(sorted(refused))}]."
        )
    return [changed[key] for key in sorted(rounding)]
