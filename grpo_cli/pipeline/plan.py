"""From a pipeline's file and the command line to the steps that it stands for.

A file is YAML. `stages` names the stages in their order: each is an r1zero command with its overrides, and `takes` says
which settings come from an earlier stage, as a path in the pipeline's folder. `repeat` does some of them several times.
`evaluate` has the overrides of `r1zero eval` for the base model and for each model that is trained. Every other key is
a variable, used as ${name} and set on the command line; ??? marks one that must be.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.grammar import quoted
from grpo_cli.errors import ConfigError

COMMANDS = ("train", "sft", "reward-model", "sample", "eval")  # that a stage may be
LEAVES_MODEL = ("train", "sft")  # in model/, one that answers and can be evaluated
RESUMED = ("train", "sft", "reward-model")  # with resume=auto; the others go on by themselves
OWN_KEYS = ("stages", "repeat", "evaluate")  # of a file; every other is a variable
STAGE_KEYS, REPEAT_KEYS = ("command", "overrides", "takes"), ("stages", "times")
RESERVED = ("run", "base", "evaluate")  # no names for stages
MUST_BE_GIVEN = "???"
GIVEN_BY_PIPELINE = ("run.dir", "resume", "resume.run")
Pipeline = dict[str, Any]  # a file as it was read, with its overrides in words; nothing is filled in yet


@dataclass(frozen=True)
class Step:
    """One command of a pipeline. Its name is its folder's."""

    name: str
    command: str
    settings: Mapping[str, str]  # overrides by key, as Hydra reads them
    takes: Mapping[str, str]  # of these, the ones from earlier steps: <step>/<path>
    evaluates: str | None = None  # of an evaluation, the step whose model it is, or base

    def arguments(self, folder: Path) -> list[str]:
        """The overrides in full, in a pipeline that lives in `folder`."""
        taken = {key: quoted(str(folder / path)) for key, path in self.takes.items()}
        group = {"logger.group": quoted(folder.name)}  # W&B shows the steps together
        own = {"run.dir": quoted(str(folder / self.name))}
        if self.command in RESUMED:
            own["resume"] = "auto"
        return [f"{key}={value}" for key, value in {**group, **self.settings, **taken, **own}.items()]

    @property
    def sources(self) -> list[str]:
        """The steps that it takes from."""
        return list(dict.fromkeys(path.split("/")[0] for path in self.takes.values()))


def pipeline_files() -> dict[str, Path]:
    """The pipelines that come with r1zero, by name."""
    return {file.stem: file for file in sorted((conf_dir() / "pipeline").glob("*.yaml"))}


def read_pipeline(name: str) -> Pipeline:
    """A pipeline by its name, or by the path of its file.

    Raises ConfigError where there is none, or where its file is not shaped as one: all its faults.
    """
    known = pipeline_files()
    file = known.get(name, Path(name).expanduser())
    if not file.is_file():
        raise ConfigError(
            f"pipeline={name}: there is no pipeline of that name, and no such file.{_nearest(name, known)} There are: "
            f"{', '.join(known)}."
        )
    try:
        pipeline = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not YAML: {error}\nA word with ${{...}} in a [list] needs quotes.") from error
    refuse([f"{file}: {fault}" for fault in _shape_faults(pipeline)])
    stages = {
        name: stage | {"overrides": _words(stage.get("overrides")), "takes": stage.get("takes") or {}}
        for name, stage in pipeline["stages"].items()
    }
    return pipeline | {"stages": stages, "evaluate": _words(pipeline.get("evaluate"))}


def with_settings(pipeline: Pipeline, settings: Sequence[str]) -> Pipeline:
    """A copy with what the command line sets: variables, and `<stage>.<key>=<value>` as one more override of a stage.

    Raises ConfigError with every key that there is not, and every variable that still lacks a value.
    """
    pipeline = deepcopy(pipeline)
    overrides = {name: stage["overrides"] for name, stage in pipeline["stages"].items()}
    overrides["evaluate"] = pipeline["evaluate"]
    variables, faults = _variables(pipeline), []
    for setting in settings:
        key, is_set, value = setting.partition("=")
        stage, _, rest = key.partition(".")
        if not is_set:
            faults.append(f"{setting}: write key=value.")
        elif key in variables:
            pipeline[key] = value
        elif key == "evaluate":
            overrides["evaluate"][:] = [] if value == "null" else _words(value)
        elif rest in GIVEN_BY_PIPELINE:
            faults.append(f"{key}: the pipeline gives each stage its folder and lets it go on. Leave it out.")
        elif rest and stage in overrides:
            overrides[stage].append(f"{rest}={value}")
        else:
            known = [*variables, *(f"{name}.{rest}" for name in overrides if rest)]
            faults.append(
                f"{key}: this pipeline has no variable of that name.{_nearest(key, known)} It has: "
                f"{', '.join(variables)}. A setting of one stage is <stage>.<key>=<value>, with a stage of: "
                f"{', '.join(overrides)}."
            )
    faults += [
        f"{name}: this pipeline needs a value. Give it, as in {name}=..."
        for name in variables
        if pipeline[name] == MUST_BE_GIVEN
    ]
    refuse(faults)
    return pipeline


def steps_of(pipeline: Pipeline) -> list[Step]:
    """The steps in their order, evaluations among them.

    Raises ConfigError with every take from a stage that does not come before, and every variable that there is not.
    """
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(pipeline), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The pipeline cannot be read: {str(error).strip()}") from error
    stages, repeat = resolved["stages"], resolved.get("repeat") or {"stages": [], "times": 1}
    refuse(list(_repeat_faults(repeat, stages)))
    evaluate = _by_key(resolved["evaluate"])
    steps, faults = [], []
    latest: dict[str, str] = {}  # of each stage, the name of its last step so far
    if evaluate:
        steps.append(Step("base_eval", "eval", evaluate, {}, evaluates="base"))
    for stage, number in _rounds(list(stages), repeat):
        name = f"{stage}_{number}" if number else stage
        command, settings = stages[stage]["command"], _by_key(stages[stage]["overrides"])
        takes = {}
        for key, path in stages[stage]["takes"].items():
            source, _, rest = str(path).partition("/")
            if source in latest and rest:
                takes[key] = f"{latest[source]}/{rest}"
            elif not (number and rest and source in repeat["stages"]):  # else no earlier round has left it yet
                faults.append(
                    f"stages.{stage}.takes: {key}: {path}: is not <an earlier stage>/<a file or folder of it>."
                    f"{_nearest(source, latest)}"
                )
        # What is set by hand stands.
        steps.append(Step(name, command, settings, {key: takes[key] for key in takes if key not in settings}))
        latest[stage] = name
        if evaluate and command in LEAVES_MODEL:
            steps.append(Step(f"{name}_eval", "eval", evaluate, {"model.path": f"{name}/model"}, evaluates=name))
    names = [step.name for step in steps]
    faults += [f"There are two steps of the name {name}. Rename a stage." for name in _twice(names)]
    refuse(faults)
    return steps


def _shape_faults(pipeline: Any) -> Iterator[str]:
    if not isinstance(pipeline, dict) or not isinstance(pipeline.get("stages"), dict):
        yield "has no stages. Name each under `stages:`, with its command, as in `rl: {command: train}`."
        return
    text = yaml.safe_dump(pipeline)
    for name in _variables(pipeline):
        if f"${{{name}}}" not in text:
            yield f"{name}: nothing uses it as ${{{name}}}.{_nearest(name, OWN_KEYS)}"
    for name, stage in pipeline["stages"].items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) or name in RESERVED:
            yield f"stages.{name}: is no name for a stage. Use small letters, digits and _, and not base or evaluate."
        yield from _unknown(stage if isinstance(stage, dict) else {}, STAGE_KEYS, f"stages.{name}")
        command = stage.get("command") if isinstance(stage, dict) else None
        if command not in COMMANDS or command not in SCHEMAS:
            possible = ", ".join(command for command in COMMANDS if command in SCHEMAS)
            yield f"stages.{name}.command: {command} is not what a stage can do. Give one of: {possible}."
    if isinstance(pipeline.get("repeat"), dict):
        yield from _unknown(pipeline["repeat"], REPEAT_KEYS, "repeat")
    elif pipeline.get("repeat") is not None:
        yield "repeat: needs the stages and how many times, as in {stages: [sample, sft], times: 3}."


def _unknown(given: Iterable[str], known: Sequence[str], where: str) -> Iterator[str]:
    for key in given:
        if key not in known:
            yield f"{where}.{key}: there is no such key.{_nearest(key, known)} There are: {', '.join(known)}."


def _repeat_faults(repeat: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[str]:
    repeated, times = repeat.get("stages") or [], str(repeat.get("times"))
    if not times.isdecimal() or int(times) < 1:
        yield f"repeat.times={times}: is not a number of rounds. Give 1 or more."
    if f" {' '.join(repeated)} " not in f" {' '.join(stages)} " and repeated:
        yield f"repeat.stages={repeated}: must follow each other as they do here: {', '.join(stages)}."


def _rounds(stages: Sequence[str], repeat: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Each stage in the order of its steps, and the number of its round: 0 of one that is not repeated."""
    repeated = repeat["stages"]
    for stage in stages:
        if stage not in repeated:
            yield stage, 0
        elif stage == repeated[0]:
            yield from ((name, number) for number in range(1, int(repeat["times"]) + 1) for name in repeated)


def _variables(pipeline: Pipeline) -> list[str]:
    return [str(key) for key in pipeline if key not in OWN_KEYS]


def _words(overrides: Any) -> list[str]:
    """The overrides of a line as a shell would part them, or of a list."""
    return shlex.split(overrides) if isinstance(overrides, str) else list(overrides or [])


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    """The last value of each key."""
    if bad := [word for word in overrides if "=" not in word or word.startswith("-")]:
        raise ConfigError(f"{bad[0]}: is no override. A stage takes settings alone, as key=value.")
    return {key: value for key, _, value in (word.partition("=") for word in overrides)}


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def refuse(faults: Sequence[str]) -> None:
    """Raise one ConfigError that lists the faults, if there are any."""
    if faults:
        raise ConfigError("\n".join(faults))
