"""Reads a pipeline's file and turns it into stages.

A pipeline is a YAML file. `stages` gives each stage a name and an r1zero command line. `evaluate` holds overrides of
`r1zero eval` for the base model and for each trained model. OmegaConf fills in `${key}` from the file's other keys, and
`${dir}` is the pipeline's folder: `${dir}/<stage>/model` is the model of an earlier stage.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.commands import COMMANDS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.grammar import quoted
from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean

STAGE_COMMANDS = [name for name, command in COMMANDS.items() if command.loops]
SET_BY_PIPELINE = ("run.dir", "resume", "resume.run")
DIR = "${dir}"
Pipeline = dict[str, Any]  # a file's content, with nothing filled in


@dataclass(frozen=True)
class Stage:
    """A command of a pipeline; its run folder has the stage's name."""

    name: str
    words: list[str]  # the command and its overrides
    uses: list[str]  # earlier stages whose files it reads

    @property
    def line(self) -> str:
        """The command line that runs the stage alone."""
        return shlex.join(["r1zero", *self.words])


def pipeline_files() -> dict[str, Path]:
    """The pipelines that are part of r1zero, by name."""
    return {file.stem: file for file in sorted((conf_dir() / "pipeline").glob("*.yaml"))}


def read_pipeline(name: str) -> Pipeline:
    """The content of a pipeline's file, given by its name in conf/pipeline/ or its path.

    Raises ConfigError if there is no such file, or with all errors in its structure.
    """
    known = pipeline_files()
    file = known.get(name, Path(name).expanduser())
    if not file.is_file():
        raise ConfigError(
            f"pipeline={name}: there is no such pipeline or file.{did_you_mean(name, known)} "
            f"There are: {', '.join(known)}."
        )
    try:
        pipeline: Any = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8-sig")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}\nIn braces {{}}, text with ${{...}} needs quotes.") from error
    reject([f"{file}: {fault}" for fault in _form_faults(pipeline)])
    return pipeline


def with_settings(pipeline: Pipeline, settings: Sequence[str]) -> Pipeline:
    """A copy with the command line's settings: values of the file's keys, and overrides added to a stage.

    Raises ConfigError with every setting that is neither.
    """
    stages, faults = dict(pipeline["stages"]), []
    pipeline = pipeline | {"stages": stages}
    keys = [key for key in pipeline if key != "stages"]
    for setting in settings:
        key, is_set, value = setting.partition("=")
        name, _, rest = key.partition(".")
        lines = pipeline if name == "evaluate" else stages
        if is_set and key in keys:
            pipeline[key] = "" if setting == "evaluate=null" else value
        elif is_set and rest and name in lines:
            lines[name] = f"{lines[name] or ''} " + shlex.quote(f"{rest}={value}")
        else:
            near = did_you_mean(key, [*keys, *(f"{stage}.{rest}" for stage in stages)])
            faults.append(
                f"{setting}: this pipeline has no such setting.{near} Use <key>=<value> with a key of "
                f"{', '.join(keys)}, or <stage>.<key>=<value> with a stage of {', '.join(stages)}."
            )
    reject(faults)
    return pipeline


def stages_of(pipeline: Pipeline, folder: Path) -> list[Stage]:
    """The stages in order, evaluations included, as they run in `folder`.

    Raises ConfigError with every key that needs a value, or every stage that cannot be run.
    """
    reject([f"{key}: this pipeline needs it. Set {key}=..." for key, value in pipeline.items() if value == "???"])
    stages: list[Stage] = []
    faults: list[str] = []
    try:
        # ${dir} is kept until the lines are split into words, since the folder's name may contain spaces.
        filled: Any = OmegaConf.to_container(OmegaConf.create(pipeline | {"dir": rf"\{DIR}"}), resolve=True)
        for name, (command, *overrides) in _commands(filled):
            settings = dict(word.partition("=")[::2] for word in overrides)  # the last value of each key
            uses = list(dict.fromkeys(re.findall(re.escape(DIR) + r"/([^/,\]}]*)", " ".join(settings.values()))))
            stage = Stage(name, [command, *_arguments(name, command, settings, folder)], uses)
            earlier = [stage.name for stage in stages]
            faults += [f"stages.{name}: {fault}" for fault in _stage_faults(stage, overrides, earlier)]
            stages.append(stage)
    except OmegaConfBaseException as error:
        raise ConfigError(_reference_fault(error, pipeline)) from error
    reject(faults)
    return stages


def _reference_fault(error: OmegaConfBaseException, pipeline: Pipeline) -> str:
    """Why OmegaConf cannot fill in a `${...}` of the file."""
    if match := re.search(r"Interpolation key '([^']+)' not found", str(error)):
        name = match[1]
        near = did_you_mean(name, [*pipeline, "dir"])
        return f"{error.full_key}: ${{{name}}}: the pipeline has no such key.{near} Add `{name}: <value>` to its file."
    reason = str(error).splitlines()[0]
    return f"{error.full_key}: a ${{...}} cannot be filled in ({reason}). Use ${{dir}} or a key of the pipeline's file."


def reject(faults: Sequence[str]) -> None:
    """Raise one ConfigError with the faults, a line each, if there are any."""
    if faults:
        raise ConfigError("\n".join(faults))


def _form_faults(pipeline: Any) -> Iterator[str]:
    form = "Write `name: command key=value ...`, as in `rl: train model=tiny steps=100`"
    if not isinstance(pipeline, dict) or not isinstance(pipeline.get("stages"), dict):
        yield f"has no stages. {form}, for each under `stages:`."
        return
    for key in pipeline:
        if key not in ("stages", "evaluate") and (key == "dir" or f"${{{key}}}" not in str(pipeline)):
            nearest = did_you_mean(key, ("stages", "evaluate"))
            yield f"{key}: no stage uses it as ${{{key}}}, or r1zero sets it.{nearest}"
    for name, line in pipeline["stages"].items():
        if (
            not re.fullmatch(r"[a-z][a-z0-9_]*", str(name))
            or name == "evaluate"
            or not (isinstance(line, str) and line.strip())
        ):
            yield f"stages.{name}: {line}: is not a stage. {form}; the name has small letters, digits and _."
    if not isinstance(pipeline.get("evaluate"), str | None):
        yield "evaluate: must be a text with overrides of `r1zero eval`, such as `benchmark=math500 eval.n=4`, or null."


def _commands(filled: Pipeline) -> Iterator[tuple[str, list[str]]]:
    """The name and command of each stage and, with `evaluate`, of each evaluation."""
    evaluate = _words("evaluate", filled.get("evaluate") or "")
    if evaluate:
        yield "base_eval", ["eval", *evaluate]
    for name, line in filled["stages"].items():
        words = _words(f"stages.{name}", line)
        if not words:
            raise ConfigError(f"stages.{name}: is empty. Write a command and its overrides, or remove the stage.")
        yield name, words
        if evaluate and words[0] in COMMANDS and COMMANDS[words[0]].leaves_model:
            yield f"{name}_eval", ["eval", *evaluate, f"model.path={DIR}/{name}/model"]


def _words(key: str, line: str) -> list[str]:
    """The words of a command line, as a shell would split it."""
    try:
        return shlex.split(str(line))
    except ValueError as error:
        raise ConfigError(f"{key}: {line}: a quotation mark is not closed, or the line ends in \\. Fix it.") from error


def _stage_faults(stage: Stage, overrides: Sequence[str], earlier: Sequence[str]) -> Iterator[str]:
    if stage.name in earlier:
        yield "an evaluation has this name too. Rename the stage."
    if stage.words[0] not in STAGE_COMMANDS:
        yield f"{stage.words[0]} is not a command that a stage can run. Use one of {', '.join(STAGE_COMMANDS)}."
    for word in overrides:
        if "=" not in word or word.startswith("-"):
            yield f"{word} is not an override. Use key=value."
        if word.partition("=")[0] in SET_BY_PIPELINE:
            yield f"{word}: the pipeline gives each stage its folder and resumes it. Leave it out."
    for other in stage.uses:
        if other not in earlier:
            yield f"{DIR}/{other}: there is no earlier stage of that name.{did_you_mean(other, earlier)}"


def _arguments(name: str, command: str, settings: Mapping[str, str], folder: Path) -> list[str]:
    """The overrides with the pipeline's folder filled in, and what the pipeline adds."""
    paths = {key: value.replace(DIR, str(folder)) for key, value in settings.items()}
    filled = {key: quoted(path) if settings[key].startswith(DIR) else path for key, path in paths.items()}
    added = {"run.dir": quoted(str(folder / name))}
    if command in COMMANDS and COMMANDS[command].saves:
        added["resume"] = "auto"  # the other commands continue by themselves
    group = {"logger.group": quoted(folder.name)}  # W&B shows the stages together
    return [f"{key}={value}" for key, value in (group | filled | added).items()]
