"""What users type after a command: shorthands, and faults that are found before Hydra composes anything."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException

from grpo_cli.bounds import number_faults
from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import EXPORTED, conf_dir
from grpo_cli.config.grammar import VALUE_FLAGS, comma_fault, overrides_in, parsed, syntax_fault, with_line_breaks
from grpo_cli.config.groups import HIDDEN, config_groups, extra_conf_dirs, groups_of
from grpo_cli.config.known import known_settings, nearest, wrong_values
from grpo_cli.errors import ConfigError

# Hydra's flags.
FLAGS = {
    *VALUE_FLAGS,
    *("-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-m", "--multirun"),
}
# Groups whose choice `file` takes any source, with the settings for a path and for a Hub id.
SOURCES = {
    "model": ("model.path", "model.path"),
    "data": ("data.path", "data.source"),
    "benchmark": ("benchmark.file.path", "benchmark.file.source"),
}
FILE_TYPES = (".jsonl", ".json", ".csv", ".parquet", ".gz")
NO_CHDIR = (
    "r1zero does not change its working folder, since relative paths in settings would then change their meaning. "
    "Leave it out: a run writes everything to run.dir."
)


def check_overrides(command: str, arguments: Sequence[str]) -> None:
    """Raise one ConfigError that lists every override that cannot be read, every key or choice that does not exist,
    with the nearest one that does, and every number of a sweep that is out of bounds.

    Hydra would only name the first, and suggest `+key=...`, which a typed configuration rejects.
    """
    own_dirs = list(extra_conf_dirs(arguments))
    options = config_groups([conf_dir(), *own_dirs])
    settings = list(known_settings(SCHEMAS[command]))
    is_sweep = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    faults = [f"--config-dir={folder}: there is no such folder." for folder in own_dirs if not folder.is_dir()]
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
            if name not in groups_of(command) and not override.is_add():
                faults.append(
                    f"{argument}: `r1zero {command}` has no group {name}. It has "
                    f"{', '.join(sorted(groups_of(command) - HIDDEN))}."
                )
            if isinstance(override.value(), Mapping):
                faults.append(
                    f"{argument}: {name} takes the name of a file. Set its settings one by one, as in {name}.<key>=..."
                )
                continue
            for choice in _choices(override):
                faults += _choice_faults(name, choice, options[name], own_dirs)
        elif setting is None:
            known = [*(setting.key for setting in settings), *options]
            faults.append(f"{name}: there is no setting of that name.{nearest(name, known)}")
        elif not override.is_delete():
            for value in _values(override):
                wrong = list(wrong_values(name, value, settings))
                faults += wrong
                if override.is_sweep_override() and isinstance(value, int | float) and not wrong:
                    faults += number_faults(name, value, setting.field)
    if faults:
        hint = f"`r1zero {command} --help` lists the groups and every setting."
        raise ConfigError("\n".join([*faults, hint]))


def check_flags(command: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError if a setting is given as a flag, as in `--steps 3`, or a flag does not exist."""
    known = sorted({setting.key for setting in known_settings(SCHEMAS[command])} | groups_of(command) - HIDDEN)
    faults = []
    for argument, following in pairwise([*arguments, ""]):
        flag, is_set, value = argument.partition("=")
        if not flag.startswith("-") or flag in FLAGS:
            continue
        name = flag.lstrip("-").replace("-", "_")
        if not is_set:
            value = following if following and following[0] != "-" and "=" not in following else "..."
        keys = [key for key in known if key == name] or [key for key in known if key.endswith(f".{name}")]
        if name == "config":
            faults.append(_config_flag_fault(value))
        elif keys:
            typed = " or ".join(f"{key}={value}" for key in keys)
            faults.append(f"{flag}: settings are given without dashes. Use {typed}.")
        else:
            faults.append(f"{flag}: there is no such flag.{nearest(name, known)}")
    if faults:
        raise ConfigError(
            "\n".join([*faults, f"`r1zero {command} --help` lists every setting, and the flags at its end."])
        )


def expand_shorthands(command: str, arguments: Sequence[str]) -> list[str]:
    r"""The arguments with r1zero's own shorthands as Hydra overrides: `resume=`, `model=org/name`, `\n` in a template's
    text, and those of the command.
    """
    settings = SCHEMAS[command]
    if "resume" in get_type_hints(settings):
        arguments = [f"resume.run={a.removeprefix('resume=')}" if a.startswith("resume=") else a for a in arguments]
    expand: Callable[[Sequence[str]], list[str]] = getattr(settings, "expand_shorthands", list)
    expanded = [word for argument in expand(arguments) for word in _expand_source(command, argument)]
    return [with_line_breaks(argument) for argument in expanded]


def _expand_source(command: str, argument: str) -> list[str]:
    """`model=org/name` or `model=folder/` as `model=file model.path=...`; data and benchmarks in the same way."""
    group, _, given = argument.partition("=")
    values = given.split(",")
    if group not in SOURCES or group not in groups_of(command) or "[" in given or not all(map(_is_source, values)):
        return [argument]
    return [f"{group}=file", f"{_source_key(group, values[0])}={given}"]


def _is_source(value: str) -> bool:
    return "/" in value or Path(value).suffix in FILE_TYPES or ("." in value and Path(value).exists())


def _source_key(group: str, value: str) -> str:
    """The setting that takes a path or, for another value, the one that takes a Hub id."""
    path = Path(value.strip("\"'")).expanduser()
    is_local = path.exists() or value.startswith((".", "/", "~")) or path.suffix in FILE_TYPES
    return SOURCES[group][0 if is_local else 1]


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
    open_keys = tuple(
        setting.key + end for setting in known_settings(SCHEMAS[command]) if setting.is_open for end in ".="
    )
    resumes = any(a.startswith("resume.run=") and a not in ("resume.run=auto", "resume.run=never") for a in arguments)

    def allow_new_entry(argument: str) -> str:
        if argument.startswith(open_keys):
            return f"++{argument}"
        if resumes and argument.startswith(tuple(f"~{key}" for key in open_keys)):
            return f"++{argument[1:].partition('=')[0]}=null"
        return argument

    return [allow_new_entry(argument) for argument in arguments]


def _values(override: Override) -> Iterator[Any]:
    """The value that an override gives, or each one of a sweep; none if only the sweeper knows them."""
    if override.is_discrete_sweep() and not isinstance(override.value(), Glob):
        yield from (parsed(f"key={value}").value() for value in override.sweep_string_iterator())
    elif not override.is_sweep_override():
        yield override.value()


def _choices(override: Override) -> Iterator[str]:
    """The group options that an override names: one, a list, or those of a sweep; none for a pattern."""
    chosen = override.value()
    if isinstance(chosen, Glob):
        return
    for value in chosen.list if isinstance(chosen, ChoiceSweep) else [chosen]:
        yield from (str(choice) for choice in (value if isinstance(value, list) else [value]) if choice is not None)


def _choice_faults(group: str, choice: str, options: Mapping[str, Path], own_dirs: Sequence[Path]) -> Iterator[str]:
    """The fault of a choice that does not exist, or of a user's file that has the name of one of ours."""
    own_files = [folder / group / f"{choice}.yaml" for folder in own_dirs]
    if choice in options:
        yield from (
            f"{file} has the name of a built-in {group}, which would be used. Rename it, as in my_{choice}.yaml."
            for file in own_files
            if file.is_file() and options[choice] != file
        )
    elif "/" not in choice:
        yield (
            f"{group}={choice}: there is no {group} of that name.{nearest(choice, options)} "
            f"Choose one of {', '.join(sorted(options))}."
        )
    elif group in SOURCES:
        yield f"{group}={choice}: give a path or a Hub id alone: {group}=file {_source_key(group, choice)}={choice}."
    else:
        yield (
            f"{group}={choice}: a {group} is given by its file's name alone. Put your own file into my_conf/{group}/, "
            f"and give --config-dir=my_conf {group}={Path(choice).stem}."
        )


def _config_flag_fault(file: str) -> str:
    name = Path(file).stem if file != "..." else "mine"
    return (
        "--config: a file of settings is an experiment. Save it as my_conf/experiment/"
        f"{name}.yaml with the first line `# @package _global_`, and give --config-dir=my_conf experiment={name}. "
        "--config-path and --config-name replace the command's own file in conf/."
    )


def _glob_faults(override: Override, options: Collection[str]) -> Iterator[str]:
    """The fault of a sweep over a pattern that no option matches."""
    pattern = override.value()
    if isinstance(pattern, Glob) and not pattern.filter(list(options)):
        name = override.key_or_group
        yield f"{override.input_line}: matches no {name}. Choose from {', '.join(sorted(options))}."
