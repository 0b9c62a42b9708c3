"""What may differ between the start of a run and its resumption.

A run goes on with the settings that it was started with, in `<run folder>/config.yaml`. Kept free of torch.
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
from grpo_cli.config.paths import with_absolute_paths
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import frozen_text, read_frozen

# Settings that do not change what is learned.
FREE = ("run.", "resume.", "logger.", "checkpoint.", "cluster.slurm.", "cluster.gpu.", "cluster.memory_gib.")
ROUNDING = ("cluster.",)  # memory and speed: the same mathematics, added up in another order
# Settings that do not change a sample, of the commands that sample into a folder, with the exceptions.
FREE_OF_SAMPLES = ("trust.", "run.", "logger.", "eval.n.", "eval.language.", "analyze.", "sample.", "to.", "cluster.")
NOT_FREE_OF_SAMPLES = (
    *("cluster.device", "cluster.dtype"),
    *("sample.temperature", "sample.top_p", "sample.max_new_tokens"),
)
NOT_ROUNDING = ("cluster.device", "cluster.dtype")
# What the checkpoint decides, whatever is allowed.
FIXED = {
    "seed": "it draws the held-out problems, which would be trained on",
    "batch_size": "the steps that are done are counted in it",
    "model.lora.rank": "the adapters that are trained have it",
    "model.lora.target_modules": "the adapters that are trained stand there",
}
STEPS_A_ROLLOUT = ("algorithm.num_minibatches", "algorithm.num_epochs")
OPEN = ("reward.terms.", "data.mix.")  # dictionaries of anything, whose entries can be taken out
EVERY_RUN = {"run", "model", "data", "logger"}  # what no config.yaml lacks
ABSENT = object()


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """The folders of a run's checkpoints, the newest first, whether they are whole or not."""
    names = re.compile(r"step_\d{6,}")
    folders = [path for path in (run_dir / "checkpoints").glob("step_*") if names.fullmatch(path.name)]
    return sorted(folders, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was taken, by its name."""
    return int(checkpoint.name.split("_")[1].partition(".")[0])


def frozen_settings(run_dir: Path, command: str) -> DictConfig:
    """The settings that the run of `command` was started with.

    Raises CheckpointError where there is no run of that command, or its settings are damaged, and ConfigError where
    this version does not know them.
    """
    if (run_dir / "state.json").is_file():
        raise CheckpointError(f"{run_dir} is a checkpoint. Give the folder of its run: {run_dir.absolute().parents[1]}")
    file = run_dir / "config.yaml"
    if file.is_file():
        return settings_in(file, command)
    if folders := checkpoint_folders(run_dir):
        raise CheckpointError(f"{run_dir} has lost its config.yaml. {_how_to_bring_back(file, folders)}")
    if (run_dir / "pipeline.yaml").is_file():
        raise CheckpointError(f"{run_dir} holds a pipeline. Resume it with `r1zero pipeline resume={run_dir}`.")
    raise CheckpointError(f"{run_dir} holds no run (no config.yaml). Give the folder of a run, as in runs/...")


def settings_in(file: Path, command: str) -> DictConfig:
    """The settings of a run of `command` in a config.yaml, with absolute paths. Raises as `frozen_settings` does."""
    try:
        stored = read_frozen(file)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise _damaged(file, str(error).splitlines()[0]) from error
    if not isinstance(stored, DictConfig) or not EVERY_RUN & stored.keys():
        raise _damaged(file, "it holds no settings")
    try:
        settings = _typed(stored, command)
    except OmegaConfBaseException as error:
        if other := command_of(stored):
            raise CheckpointError(
                f"{file.parent} holds a run of `r1zero {other}`, which `r1zero {command}` cannot go on with. Use "
                f"`r1zero {other}`, or give the folder of a run of `r1zero {command}`."
            ) from error
        raise ConfigError(
            f"{file} has settings that this version of r1zero does not have: {error}\nResume with the version that "
            "wrote it, or fix the file."
        ) from error
    if missing := EVERY_RUN - stored.keys():
        raise _damaged(file, f"it has no {', '.join(sorted(missing))}")
    return settings


def resumed_settings(composed: DictConfig, given: Sequence[str], command: str) -> DictConfig:
    """The settings of the run that `resume.run` names, but for what is `given` on the command line.

    `composed` is what the command line would make of a new run, `given` the keys and groups that stand on it, with a
    `~` before what it takes out. A run that is not named by its folder is composed as it stands.
    """
    if composed.resume.run in ("never", "auto"):
        return composed
    if "experiment" in given:
        raise ConfigError(
            f"experiment= sets many settings, and resume={composed.resume.run} brings all of its run. Leave it out."
        )
    settings = frozen_settings(Path(composed.resume.run).expanduser(), command)
    for key in (some.lstrip("~") for some in given):
        if not f"{key}.".startswith(("hydra.", "run.dir.")) and "/" not in key:
            value = OmegaConf.select(composed, key, default=ABSENT)
            value = escaped(value) if isinstance(value, str) else value  # which is resolved, and would be again
            _take(settings, key, value)
    settings.run.dir = composed.resume.run
    settings.resume.allow = composed.resume.allow  # what was allowed once is not allowed for ever
    settings.resume.trust = composed.resume.trust  # nor does a run say of itself that it can be trusted
    return settings


def changes(there: DictConfig, config: Any, command: str) -> dict[str, tuple[Any, Any]]:
    """By key, the two values of each setting of a run of `command` that has another value in `config` than `there`, and
    has to do with what is learned.
    """
    before, after = flat_settings(to_typed(there, command)), flat_settings(config)
    return {
        key: (before.get(key, "nothing"), after.get(key, "nothing"))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ABSENT) != after.get(key, ABSENT) and not f"{key}.".startswith(FREE)
    }


def check_resumed(config: Any, command: str) -> list[str]:
    """What will be other than it was in the run that this one goes on with, where that is only rounding.

    Raises ConfigError where a setting would change what is learned, unless `resume.allow` names it, and where it
    cannot change at all.
    """
    run_dir = Path(config.run.dir)
    if not (run_dir / "config.yaml").exists() and not checkpoint_folders(run_dir):
        return []
    changed = changes(frozen_settings(run_dir, command), config, command)
    allowed = tuple(f"{key}." for key in config.resume.allow)
    if config.optimizer.schedule == Schedule.constant:
        allowed += ("steps.", "epochs.")  # a run may be made longer: nothing that was done depends on where it ends
    told = {key: f"{key}: {before} there, {after} now" for key, (before, after) in changed.items()}
    fixed = {key: reason for key in changed if (reason := _why_fixed(key, config))}
    rounding = {key for key in changed if key.startswith(ROUNDING) and key not in NOT_ROUNDING} - fixed.keys()
    refused = [key for key in changed if key not in rounding | fixed.keys() and not f"{key}.".startswith(allowed)]
    faults = []
    if fixed:
        faults += ["These cannot change in a run:", *(f"{told[key]} ({reason})" for key, reason in fixed.items())]
        faults.append("Start a new run with them, in another run.dir, from the model of this one if you like.")
    if refused:
        faults += ["It holds a run of other settings:", *(told[key] for key in refused)]
        faults.append(
            "Give the settings of that run (resume=<its folder> takes them all) or another run.dir. To change them "
            f"on purpose: resume.allow=[{','.join(refused)}]."
        )
    if faults:
        raise ConfigError("\n".join([f"{run_dir} cannot be resumed so.", *faults]))
    _check_length(run_dir, config)
    return [told[key] for key in sorted(rounding)]


def _why_fixed(key: str, config: Any) -> str | None:
    if key in STEPS_A_ROLLOUT:
        if config.optimizer.schedule != Schedule.constant:
            return "the schedule of the learning rate counts optimizer steps"
        if config.rollout.max_new_tokens_schedule:
            return "rollout.max_new_tokens_schedule counts optimizer steps"
    return FIXED.get(key)


def _check_length(run_dir: Path, config: Any) -> None:
    whole = [folder for folder in checkpoint_folders(run_dir) if (folder / "manifest.json").is_file()]
    steps = getattr(config, "steps", None)
    if whole and steps is not None and steps < step_of(whole[0]):
        raise ConfigError(
            f"steps={steps}: the run in {run_dir} has taken {step_of(whole[0])} already. Set steps to that or more, or "
            "move its later checkpoints away to go on from an earlier one."
        )


def _take(settings: DictConfig, key: str, value: Any) -> None:
    """Set what the command line gives; what it takes out is not in it, or, of an open dictionary, None."""
    parent, _, name = key.rpartition(".")
    if value is ABSENT or (value is None and f"{parent}." in OPEN):
        holder = OmegaConf.select(settings, parent) if parent else settings
        if not isinstance(holder, DictConfig) or name not in holder:
            raise ConfigError(f"~{key}: the run that is resumed has no such setting (any more). Leave it out.")
        del holder[name]
    else:
        OmegaConf.update(settings, key, value, merge=False, force_add=True)


def _typed(stored: DictConfig, command: str) -> DictConfig:
    plain: Mapping[str, Any] = with_absolute_paths(OmegaConf.to_container(stored))
    return OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), plain)


def command_of(stored: DictConfig) -> str | None:
    """The command whose settings these are."""
    for command in SCHEMAS:
        try:
            _typed(stored, command)
        except OmegaConfBaseException:
            continue
        return command
    return None


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}. {_how_to_bring_back(file, checkpoint_folders(file.parent))}")


def _how_to_bring_back(file: Path, folders: Sequence[Path]) -> str:
    if not folders:
        return "Bring back a copy of it, or start a new run in another run.dir."
    return f"Each checkpoint holds a copy: cp {quote(str(folders[0] / file.name))} {quote(str(file))}"


def check_same_samples(config: Any, folder: Path) -> None:
    """Raise ConfigError if `folder` holds samples of other settings. They are left alone."""
    config_file = folder / "config.yaml"
    if not config_file.exists():
        return
    before, now = flat_settings(OmegaConf.load(config_file)), flat_settings(OmegaConf.create(frozen_text(config)))
    changed = [
        f"{key}: {before[key]} there, {now[key]} now"
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key] and (key in NOT_FREE_OF_SAMPLES or not f"{key}.".startswith(FREE_OF_SAMPLES))
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds samples of other settings:\n"
            + "\n".join(changed)
            + "\nGive another run.dir, or the settings of that one."
        )
