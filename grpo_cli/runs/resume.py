"""Which settings may differ when a run is resumed.

A run resumes with the settings that it was started with, in `<run folder>/config.yaml`. Does not import torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grpo_cli.choices import Schedule
from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import flat_settings, to_typed
from grpo_cli.config.grammar import escaped
from grpo_cli.config.known import file_faults
from grpo_cli.config.paths import with_absolute_paths
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import frozen_text, read_frozen

# Settings that do not change what is learned.
FREE = (
    *("run.", "resume.", "logger.", "checkpoint.", "cluster.slurm.", "cluster.gpu.", "cluster.memory_gib."),
    "rollout.restart_engines.",
)
ROUNDING = ("cluster.",)  # memory and speed: the same mathematics, summed in another order
NOT_ROUNDING = ("cluster.device", "cluster.dtype")
# Settings that do not change the samples of the commands that sample into a folder, and the exceptions.
SAMPLES_FREE = ("trust.", "run.", "logger.", "eval.n.", "eval.language.", "analyze.", "sample.", "to.", "cluster.")
SAMPLES_NOT_FREE = (
    *("cluster.device", "cluster.dtype"),
    *("sample.temperature", "sample.top_p", "sample.max_new_tokens"),
)
# Settings that can never change in a run, even if resume.allow names them, with the reason.
FIXED = {
    "seed": "it decides which problems are held out; with another seed they would be trained on",
    "batch_size": "the checkpoint counts its steps in batches of this size",
    "model.lora.rank": "the trained adapters have this rank",
    "model.lora.target_modules": "the trained adapters are in these layers",
}
STEPS_PER_ROLLOUT = ("algorithm.num_minibatches", "algorithm.num_epochs")
OPEN = ("reward.terms.", "data.mix.")  # dictionaries whose entries can be removed
IN_EVERY_RUN = {"run", "model", "data", "logger"}  # keys of every config.yaml
ABSENT = object()
MANIFEST = "manifest.json"  # in a complete checkpoint


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """The folders of a run's checkpoints, newest first, including incomplete ones."""
    names = re.compile(r"step_\d{6,}")
    folders = [path for path in (run_dir / "checkpoints").glob("step_*") if names.fullmatch(path.name)]
    return sorted(folders, key=step_of, reverse=True)


def whole_checkpoints(run_dir: Path) -> list[Path]:
    """The folders of a run's complete checkpoints, the newest first."""
    return [folder for folder in checkpoint_folders(run_dir) if (folder / MANIFEST).is_file()]


def find_checkpoint(path: Path) -> Path:
    """The last complete checkpoint of a run, or `path` if it is one. Raises CheckpointError if there is none."""
    if (path / "state.json").is_file():
        return path
    if checkpoints := whole_checkpoints(path):
        return checkpoints[0]
    raise CheckpointError(f"{path} has no complete checkpoint. Give a run that has saved one, or a model folder.")


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written, from its name."""
    return int(checkpoint.name.split("_")[1].partition(".")[0])


def frozen_settings(run_dir: Path, command: str) -> DictConfig:
    """The settings that the run of `command` in `run_dir` was started with.

    Raises CheckpointError if there is no run of that command or its settings are damaged, and ConfigError if this
    version does not know one of the settings.
    """
    if (run_dir / "state.json").is_file():
        raise CheckpointError(f"{run_dir} is a checkpoint. Give the folder of its run: {run_dir.absolute().parents[1]}")
    file = run_dir / "config.yaml"
    if file.is_file():
        return settings_in(file, command)
    if folders := checkpoint_folders(run_dir):
        raise CheckpointError(f"{run_dir} has no config.yaml any more. {_how_to_restore(file, folders)}")
    if (run_dir / "pipeline.yaml").is_file():
        raise CheckpointError(f"{run_dir} holds a pipeline. Resume it with `r1zero pipeline resume={run_dir}`.")
    raise CheckpointError(f"{run_dir} holds no run (no config.yaml). Give the folder of a run, as in runs/...")


def settings_in(file: Path, command: str) -> DictConfig:
    """The settings of a run of `command` in a config.yaml, with absolute paths. Raises as `frozen_settings` does."""
    try:
        stored = read_frozen(file)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise _damaged(file, str(error).splitlines()[0]) from error
    if not isinstance(stored, DictConfig) or not IN_EVERY_RUN & stored.keys():
        raise _damaged(file, "it holds no settings")
    try:
        settings = _typed(stored, command)
    except OmegaConfBaseException as error:
        if other := command_of(stored):
            raise CheckpointError(
                f"{file.parent} holds a run of `r1zero {other}`, which `r1zero {command}` cannot resume. Use "
                f"`r1zero {other}`, or give the folder of a run of `r1zero {command}`."
            ) from error
        raise ConfigError(
            f"{file} does not fit this version of r1zero:\n{unfit_settings(stored, command, error)}\nResume with the "
            "version that wrote it, or fix the file."
        ) from error
    if missing := IN_EVERY_RUN - stored.keys():
        raise _damaged(file, f"it has no {', '.join(sorted(missing))}")
    return settings


def resumed_settings(composed: DictConfig, given: Sequence[str], command: str) -> DictConfig:
    """The saved settings of the run that `resume.run` names, changed by the command line.

    `composed` holds the settings of a new run with this command line. `given` holds the keys and groups on the command
    line; a `~` marks one that it removes. If resume.run is `never` or `auto`, returns `composed` unchanged.
    """
    if composed.resume.run in ("never", "auto"):
        return composed
    if "experiment" in given:
        raise ConfigError(
            f"experiment= would overwrite settings of the run that resume={composed.resume.run} resumes. Leave out "
            "experiment=."
        )
    settings = frozen_settings(Path(composed.resume.run).expanduser(), command)
    for key in (key.lstrip("~") for key in given):
        if not f"{key}.".startswith(("hydra.", "run.dir.")) and "/" not in key:
            value = OmegaConf.select(composed, key, default=ABSENT)
            value = escaped(value) if isinstance(value, str) else value  # it is resolved already, and would be again
            _change(settings, key, value)
    settings.run.dir = composed.resume.run
    settings.resume.allow = composed.resume.allow  # must be given at each start
    settings.resume.trust = composed.resume.trust  # a run's own file cannot decide that it is trusted
    return settings


def changes(saved: DictConfig, config: Any, command: str) -> dict[str, tuple[Any, Any]]:
    """The settings that affect what is learned and differ between `saved` and `config`: by key, both values."""
    before, after = flat_settings(to_typed(saved, command)), flat_settings(config)
    return {
        key: (before.get(key, "nothing"), after.get(key, "nothing"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ABSENT) != after.get(key, ABSENT) and not f"{key}.".startswith(FREE)
    }


def check_resumed(config: Any, command: str) -> list[str]:
    """Check the settings of a run to resume. Returns a note for each changed setting that only affects rounding.

    Raises ConfigError if a changed setting would change what is learned and `resume.allow` does not name it, or if it
    is one that can never change.
    """
    run_dir = Path(config.run.dir)
    if not (run_dir / "config.yaml").exists() and not checkpoint_folders(run_dir):
        return []
    changed = changes(frozen_settings(run_dir, command), config, command)
    allowed = tuple(f"{key}." for key in config.resume.allow)
    if config.optimizer.schedule == Schedule.constant:
        allowed += ("steps.", "epochs.")  # a run can be made longer: earlier steps do not depend on its length
    lines = {key: f"{key}: {before} in the run, {after} now" for key, (before, after) in changed.items()}
    fixed = {key: reason for key in changed if (reason := _why_fixed(key, config))}
    rounding = {key for key in changed if key.startswith(ROUNDING) and key not in NOT_ROUNDING} - fixed.keys()
    rejected = [key for key in changed if key not in rounding | fixed.keys() and not f"{key}.".startswith(allowed)]
    faults = []
    if fixed:
        faults += ["These settings cannot change:", *(f"{lines[key]} ({reason})" for key, reason in fixed.items())]
        faults.append("Start a new run with them in another run.dir; it can start from this run's model.")
    if rejected:
        faults += ["These settings would change the results:", *(lines[key] for key in rejected)]
        faults.append(
            "Use the settings of the run (resume=<its folder> takes them all), or another run.dir. To change them on "
            f"purpose, add resume.allow=[{','.join(rejected)}]."
        )
    if faults:
        raise ConfigError("\n".join([f"{run_dir} cannot be resumed with these settings.", *faults]))
    _check_length(run_dir, config)
    return [lines[key] for key in sorted(rounding)]


def _why_fixed(key: str, config: Any) -> str | None:
    if key in STEPS_PER_ROLLOUT:
        if config.optimizer.schedule != Schedule.constant:
            return "the schedule of the learning rate counts optimizer steps"
        if config.rollout.max_new_tokens_schedule:
            return "rollout.max_new_tokens_schedule counts optimizer steps"
    return FIXED.get(key)


def _check_length(run_dir: Path, config: Any) -> None:
    complete = whole_checkpoints(run_dir)
    steps = getattr(config, "steps", None)
    if complete and steps is not None and steps < step_of(complete[0]):
        raise ConfigError(
            f"steps={steps}: the run in {run_dir} has already taken {step_of(complete[0])} steps. Set steps to that or "
            "more, or move its later checkpoints away to resume from an earlier one."
        )


def _change(settings: DictConfig, key: str, value: Any) -> None:
    """Set a key to the command line's value, or remove it if the value is ABSENT, or None in an open dictionary."""
    parent, _, name = key.rpartition(".")
    if value is ABSENT or (value is None and f"{parent}." in OPEN):
        holder = OmegaConf.select(settings, parent) if parent else settings
        if not isinstance(holder, DictConfig) or name not in holder:
            raise ConfigError(f"~{key}: the run to resume has no such setting (any more). Leave it out.")
        del holder[name]
    else:
        OmegaConf.update(settings, key, value, merge=False, force_add=True)


def _typed(stored: DictConfig, command: str) -> DictConfig:
    plain: Mapping[str, Any] = with_absolute_paths(OmegaConf.to_container(stored))
    typed: Any = OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), plain)
    return typed


def unfit_settings(stored: DictConfig, command: str, error: OmegaConfBaseException) -> str:
    """The settings of a run that this version does not have, that have a wrong type or that are missing, a line each.

    If there are none, the first line of `error`, which OmegaConf raised for them.
    """
    faults = file_faults(OmegaConf.to_container(stored), SCHEMAS[command])
    if not faults:
        missing = OmegaConf.missing_keys(OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), stored))
        faults = [f"{key} is missing." for key in sorted(missing)]
    return "\n".join(f"- {fault}" for fault in faults or [str(error).partition("\n")[0]])


def command_of(stored: DictConfig) -> str | None:
    """The first command whose schema fits these settings."""
    for command in SCHEMAS:
        try:
            _typed(stored, command)
        except OmegaConfBaseException:
            continue
        return command
    return None


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}. {_how_to_restore(file, checkpoint_folders(file.parent))}")


def _how_to_restore(file: Path, folders: Sequence[Path]) -> str:
    if not folders:
        return "Restore a copy of it, or start a new run in another run.dir."
    return f"Each checkpoint holds a copy: cp {quote(str(folders[0] / file.name))} {quote(str(file))}"


def check_same_samples(config: Any, folder: Path) -> None:
    """Raise ConfigError if `folder` holds samples that were made with other settings; they are not overwritten."""
    config_file = folder / "config.yaml"
    if not config_file.exists():
        return
    before, now = flat_settings(OmegaConf.load(config_file)), flat_settings(OmegaConf.create(frozen_text(config)))
    changed = [
        f"{key}: {before[key]} in the folder, {now[key]} now"
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key] and (key in SAMPLES_NOT_FREE or not f"{key}.".startswith(SAMPLES_FREE))
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds samples that were made with other settings:\n"
            + "\n".join(changed)
            + "\nSet another run.dir, or use the settings in that folder."
        )
