"""Compose the files of conf/ and the command line into one typed configuration."""

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from grpo_cli.bounds import number_faults
from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.grammar import comma_fault, escaped, overrides_in, parsed, syntax_fault
from grpo_cli.config.paths import with_absolute_paths
from grpo_cli.config.resolvers import register_resolvers
from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.secret import mapped

NO_CHDIR = (
    "r1zero does not change its working folder, since relative paths in settings would then change their meaning. "
    "Leave it out: a run writes everything to run.dir."
)
EXPORTED = "r1zero_config.yaml"  # the settings next to an exported model


def conf_dir() -> Path:
    """The folder of config groups, in the installed package or in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise SetupError(f"There is no conf/ folder in {package} or next to it. Install r1zero again.")


def register_schemas() -> None:
    """Register each schema in Hydra as `<command>_schema`, the first entry of its command's defaults."""
    register_resolvers()
    for command, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)


def to_typed(composed: DictConfig, command: str) -> Any:
    """A composed configuration as the command's dataclass, with interpolations resolved and absolute paths."""
    schema = OmegaConf.structured(SCHEMAS[command])
    resolved = with_absolute_paths(OmegaConf.to_container(composed, resolve=True))
    # Escaped, so that a text such as ${x} is not resolved a second time.
    return OmegaConf.to_object(OmegaConf.merge(schema, mapped(resolved, escaped)))


def plain(config: Any) -> Any:
    """A typed configuration as dictionaries, lists and plain values; enums by name.

    Does not use OmegaConf, which would read a text such as `${` as an interpolation.
    """
    if is_dataclass(config):
        return {field.name: plain(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config.name if isinstance(config, Enum) else config


def flat_settings(settings: Any) -> dict[str, Any]:
    """The values of a typed configuration or its DictConfig by dotted key; enums by name."""
    flat: dict[str, Any] = {}

    def walk(values: Any, prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = value

    walk(plain(settings) if is_dataclass(settings) else OmegaConf.to_container(settings, enum_to_str=True), "")
    return flat


def check_overrides(command: str, arguments: Sequence[str]) -> None:
    """Raise one ConfigError that lists every override that cannot be read, every key or choice that does not exist,
    with the nearest one that does, and every number of a sweep that is out of bounds.

    Hydra would only name the first, and suggest `+key=...`, which a typed configuration rejects.
    """
    folders = [conf_dir(), *(Path(folder) for folder in _extra_conf_dirs(arguments))]
    options = config_groups(folders)
    settings = list(_settings(SCHEMAS[command]))
    is_sweep = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    faults = []
    for argument in overrides_in(arguments):
        name = argument.partition("=")[0].lstrip("+~")
        setting = next((setting for setting in settings if setting.matches(name)), None)
        is_text = setting is not None and setting.kind is str
        try:
            override = parsed(argument)
        except HydraException as error:
            faults.append(syntax_fault(argument, error, is_text=is_text, is_sweep=is_sweep))
            continue
        name = override.key_or_group
        if name == "hydra.job.chdir" and override.value() is True:
            faults.append(f"{argument}: {NO_CHDIR}")
        if name == "run.dir" and is_sweep:
            faults.append(
                f"{argument}: each job of a sweep has its own folder in hydra.sweep.dir. Set that instead, as in "
                f"hydra.sweep.dir={override.get_value_element_as_str()}."
            )
        if name == "hydra" or name.startswith(("hydra.", "hydra/")):
            continue
        if override.is_sweep_override() and not is_sweep:
            is_list = setting is not None and get_origin(setting.kind) in (list, tuple, dict)
            faults.append(comma_fault(argument, is_text=is_text, is_list=is_list))
        if name in options:
            faults += _glob_faults(override, options[name])
            for choice in _choices(override):
                if choice not in options[name]:
                    faults.append(
                        f"{name}={choice}: there is no {name} of that name.{_nearest(choice, options[name])} "
                        f"Choose one of {', '.join(sorted(options[name]))}."
                    )
        elif setting is None:
            known = [*(setting.key for setting in settings), *options]
            faults.append(f"{name}: there is no setting of that name.{_nearest(name, known)}")
        elif override.is_discrete_sweep():
            for value in override.sweep_iterator():
                if isinstance(value, int | float):
                    faults += number_faults(name, value, setting.field)
    if faults:
        hint = f"`r1zero {command} --help` lists the groups and every setting."
        raise ConfigError("\n".join([*faults, hint]))


def check_exported(arguments: Sequence[str]) -> None:
    """Raise ConfigError if the settings that came with a model read the environment of the user who runs them."""
    given = dict(pairwise(arguments)) | dict(a.split("=", 1) for a in arguments if "=" in a)
    folder = given.get("--config-path", given.get("-cp", "."))
    name = given.get("--config-name", given.get("-cn"))
    file = Path(folder) / EXPORTED
    if name is None or Path(name).stem != file.stem or not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    if found := [m[0] for m in re.finditer(r"(?<!\\)\$\{oc\.[^}]*\}", text)]:
        raise ConfigError(
            f"{file} came with a model and reads from your environment, which is not allowed: {', '.join(found)}. "
            "Replace these with values."
        )


def allow_new_entries(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with `++` in front of entries of open dictionaries, such as reward terms.

    Without `++`, Hydra only accepts entries that a config file has. If a run is resumed, `~entry` becomes
    `++entry=null`: the run may have the entry although the config files do not.
    """
    open_keys = tuple(setting.key + end for setting in _settings(SCHEMAS[command]) if setting.is_open for end in ".=")
    resumes = any(a.startswith("resume.run=") and a not in ("resume.run=auto", "resume.run=never") for a in arguments)

    def allow_new_entry(argument: str) -> str:
        if argument.startswith(open_keys):
            return f"++{argument}"
        if resumes and argument.startswith(tuple(f"~{key}" for key in open_keys)):
            return f"++{argument[1:].partition('=')[0]}=null"
        return argument

    return [allow_new_entry(argument) for argument in arguments]


def explain_hydra_error(error: BaseException) -> str:
    """The message of a Hydra or OmegaConf error with its causes, or a better message if we know the fix."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    message = "\n".join(dict.fromkeys(str(cause) for cause in causes))
    if match := re.search(r"Could not override 'benchmark\.(\w+)", message):
        return f"benchmark.{match[1]} is not among the benchmarks. Choose it, as in benchmark=[{match[1]}]."
    if "Unexpected type for root" in message:  # OmegaConf says this for a setting inside None
        return (
            "A setting inside cluster.slurm or model.shape is given, but that group is not set. Choose a file that "
            "sets it, as in cluster=slurm_2x8."
        )
    return message


def _choices(override: Override) -> Iterator[str]:
    """The group options that an override names: one, a list, or those of a sweep; none for a pattern."""
    chosen = override.value()
    for value in chosen.list if isinstance(chosen, ChoiceSweep) else [chosen]:
        yield from (choice for choice in (value if isinstance(value, list) else [value]) if isinstance(choice, str))


def _glob_faults(override: Override, options: Collection[str]) -> Iterator[str]:
    """The fault of a sweep over a pattern that no option matches."""
    pattern = override.value()
    if isinstance(pattern, Glob) and not pattern.filter(list(options)):
        name = override.key_or_group
        yield f"{override.input_line}: matches no {name}. Choose from {', '.join(sorted(options))}."


def _extra_conf_dirs(arguments: Sequence[str]) -> Iterator[str]:
    for argument, value in pairwise([*arguments, ""]):
        if argument in ("--config-dir", "-cd"):
            yield value
        elif argument.startswith(("--config-dir=", "-cd=")):
            yield argument.split("=", 1)[1]


def config_groups(folders: Sequence[Path]) -> dict[str, set[str]]:
    """The config groups in all folders, with their options."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            if file.parent.name == "pipeline":  # Hydra does not compose these
                continue
            groups.setdefault(file.parent.name, set()).add(file.stem)
    return groups


@dataclass(frozen=True)
class _Setting:
    key: str  # dotted; `*` stands for any entry of a typed dictionary
    kind: Any  # its type, without `| None`
    field: Field
    is_open: bool = False  # whether it is a dictionary with any entries

    def matches(self, name: str) -> bool:
        same_depth = name.count(".") == self.key.count(".")
        return (same_depth and fnmatch.fnmatchcase(name, self.key)) or (
            self.is_open and name.startswith(f"{self.key}.")
        )


def _settings(schema: Any, prefix: str = "") -> Iterator[_Setting]:
    hints = get_type_hints(schema)
    for field in fields(schema):
        hint, key = hints[field.name], prefix + field.name
        if isinstance(hint, UnionType):
            hint = get_args(hint)[0]  # the type in `type | None`
        entry = get_args(hint)[1] if get_origin(hint) is dict else None
        yield _Setting(key, hint, field, is_open=entry is not None and not is_dataclass(entry))
        if is_dataclass(hint):
            yield from _settings(hint, f"{key}.")
        elif is_dataclass(entry):
            yield _Setting(f"{key}.*", entry, field)
            yield from _settings(entry, f"{key}.*.")


def _nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean ...?`, or an empty string. A key without its group is found by its last part."""
    last = name.rsplit(".", 1)[-1]
    same_ending = [key for key in known if key.rsplit(".", 1)[-1] == last]
    close = same_ending or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        by_ending = {key.rsplit(".", 1)[-1]: key for key in known}
        close = [by_ending[ending] for ending in difflib.get_close_matches(last, by_ending, n=1, cutoff=0.6)]
    return f" Did you mean {' or '.join(close)}?" if close else ""
