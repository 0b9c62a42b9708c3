"""Hydra's and OmegaConf's errors in our words, with the fix."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.known import known_settings, nearest, wrong_values
from grpo_cli.config.reference import meanings

PLUGINS = ("hydra/launcher", "hydra/sweeper")  # groups whose choices come with packages


def explain_hydra_error(error: BaseException, command: str = "train", folders: Sequence[Path] = ()) -> str:
    """The message of a Hydra or OmegaConf error with its causes, or a better message if we know the fix.

    `folders` are those of the user's own files.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    message = "\n".join(dict.fromkeys(str(cause) for cause in causes))
    if match := re.search(r"Could not override 'benchmark\.(\w+)", message):
        return f"benchmark.{match[1]} is not among the benchmarks. Choose it, as in benchmark=[{match[1]}]."
    if "Unexpected type for root" in message or "object_type=NoneType" in message:  # a setting inside None
        return (
            "A setting inside critic, cluster.slurm or model.shape is given, but that group is not set. Choose a file "
            "that sets it, as in algorithm=ppo or cluster=slurm_2x8."
        )
    if match := re.search(r"In '([^']+)': Could not find '([^']+)'", message):
        return _missing_choice(match[1], match[2], re.findall(r"^\t(\w+)$", message, re.MULTILINE))
    if match := re.search(r"In '([^']+)': ConfigKeyError.*full_key: (\S+)", message, re.DOTALL):
        return _unknown_key(match[1], match[2], command)
    if match := re.search(r"In '([^']+)': \w+ raised while composing config", message):
        return "\n".join(_wrong_values_in(match[1], command, [*folders, conf_dir()])) or message
    if match := re.search(r"[Mm]issing mandatory value: (\S+)(?:\n\s+full_key: (\S+))?", message):
        return _missing_value(match[1] if "." in match[1] else match[2] or match[1], command)
    if match := re.search(r"Cannot find primary config '([^']+)'", message):
        return (
            f"--config-name={match[1]}: there is no {match[1]}.yaml in conf/ or in the folder of --config-path. A file "
            "of your own that changes some settings is an experiment: --config-dir=my_conf experiment=<its name>."
        )
    return message


def _missing_choice(file: str, wanted: str, options: list[str]) -> str:
    group, _, name = wanted.rpartition("/")
    if group in PLUGINS:
        kind = group.removeprefix("hydra/")
        return (
            f"{group}={name}: there is no {kind} of that name. Choose one of {', '.join(options)}, or install the "
            f"package that brings it, such as hydra-{name}-{kind}."
        )
    own, _, inner = group.partition("/")
    if inner and file.startswith(f"{own}/"):  # a relative entry of its defaults
        return (
            f"{file}.yaml: its defaults look for {wanted}.yaml, since groups are relative to its own. Write "
            f"`- override /{inner}: {name}`."
        )
    choices = f" Choose one of {', '.join(options)}." if options else ""
    return f"There is no {group} named {name}.{nearest(name, options)}{choices}"


def _unknown_key(file: str, key: str, command: str) -> str:
    """The fault of a config file that sets a key which no setting has, often because of its `# @package` line."""
    group = file.partition("/")[0]
    if key == group and group not in {setting.key for setting in known_settings(SCHEMAS[command])}:
        return (
            f"{file}.yaml: its settings would belong to `{group}`, which is no setting. Write `# @package _global_` as "
            "the first line of the file."
        )
    known = [setting.key for setting in known_settings(SCHEMAS[command])]
    hint = nearest(key, known)
    if f"{group}.{key}" in known:
        hint = (
            f" Remove the line `# @package ...`, and {key} means {group}.{key}; or write it as {group}: {{{key}: ...}}."
        )
    if group == "experiment":
        hint += (
            " The first line of an experiment is `# @package _global_`; then its keys are those of the command line."
        )
    return f"{file}.yaml sets {key}, and there is no setting of that name.{hint}"


def _wrong_values_in(name: str, command: str, folders: Sequence[Path]) -> Iterator[str]:
    """The values in a config file whose type does not fit their setting."""
    file = next((file for folder in folders if (file := folder / f"{name}.yaml").is_file()), None)
    if file is None:
        return
    values: Any = OmegaConf.to_container(OmegaConf.load(file))
    if not isinstance(values, Mapping):
        yield f"{file}: must hold settings, one `key: value` per line."
        return
    package = re.search(r"^# *@package +(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    prefix = package[1] if package else name.rpartition("/")[0].replace("/", ".")
    settings = list(known_settings(SCHEMAS[command]))
    for key, value in values.items():
        if key not in ("defaults", "hydra"):
            full_key = f"{key}" if prefix in ("", "_global_") else f"{prefix}.{key}"
            yield from (f"{file}: {fault}" for fault in wrong_values(full_key, value, settings))


def _missing_value(key: str, command: str) -> str:
    setting = next((setting for setting in known_settings(SCHEMAS[command]) if setting.matches(key)), None)
    meaning = setting and meanings(setting.owner).get(setting.field.name, "")
    return (
        f"{key} is not set. Give it as {key}=...: {meaning}" if meaning else f"{key} is not set. Give it as {key}=..."
    )
