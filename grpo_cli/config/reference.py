"""The meaning of each setting, from the docstring under its field, for `--help` and docs/settings.md."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import EnumType
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra._internal.hydra import Hydra
from omegaconf import MISSING as NO_DEFAULT
from omegaconf import DictConfig, OmegaConf

from grpo_cli.bounds import override_value
from grpo_cli.config.commands import COMMANDS, SCHEMAS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.groups import HIDDEN, config_groups, groups_of
from grpo_cli.reward.terms import BUILT_IN

WIDTH, INDENT = 118, " " * 4
FLAGS_HELP = """
Flags:
  -h, --help                this help, with the values for the given arguments
  -c, --cfg job             print the composed settings and run nothing; with --resolve, without references
  -m, --multirun            a sweep: one job for each combination of values, as in seed=1,2,3
  -cd, --config-dir DIR     also use the choices in your own folder: DIR/algorithm/mine.yaml is algorithm=mine
  -cn, --config-name NAME   use another file than the command's own in conf/, with -cp, --config-path for its folder
  -i, --info defaults       show which files are composed; --info searchpath: from which folders
  -sc, --shell-completion   bash: eval "$(r1zero -sc install=bash)", zsh: eval "$(r1zero -sc install=zsh)"
  --version                 the version of r1zero"""
INTRODUCTION = """\
# Every setting

Generated from `grpo_cli/config/` and `grpo_cli/reward/terms/` by `make settings`. Give a setting on the command line as
`key=value`; [configuration](configuration.md) explains how. `r1zero <command> --help` shows the composed values of a
command line.
"""


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, its default, the choices of an enum, and its meaning."""

    key: str
    default: str
    choices: tuple[str, ...]
    meaning: str


@cache
def meanings(group: type) -> Mapping[str, str]:
    """The docstring under each field of a dataclass, including inherited fields."""
    found: dict[str, str] = {}
    for kind in reversed(group.__mro__):
        if not is_dataclass(kind):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for line, following in zip(definition.body, definition.body[1:], strict=False):
            match line, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def settings_of(group: type, prefix: str = "") -> Iterator[Setting | tuple[str, Any]]:
    """The settings of a dataclass, and (key, dataclass) for each group in it."""
    hints = get_type_hints(group)
    for field in fields(group):
        key, kinds = f"{prefix}{field.name}", _kinds(hints[field.name])
        inner = next((kind for kind in kinds if is_dataclass(kind)), None)
        if inner is not None:
            is_dict = get_origin(hints[field.name]) is dict
            yield (f"{key}.<name>" if is_dict else key), inner
            if not is_dict:
                continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        shown = "" if default in (MISSING, NO_DEFAULT) else override_value(default)
        yield Setting(key, shown, _choices(kinds), meanings(group).get(field.name, ""))


def settings_page() -> str:
    """The text of docs/settings.md."""
    groups: dict[tuple[str, type], list[str]] = {}
    for command, schema in SCHEMAS.items():
        for place in _groups("", schema):
            groups.setdefault(place, []).append(command)
    parts = [INTRODUCTION]
    for (prefix, group), commands in groups.items():
        title = f"`{prefix}.*`" if prefix else f"`r1zero {commands[0]}`"
        of = "" if not prefix or len(commands) == len(SCHEMAS) else f" (of {', '.join(commands)})"
        parts.append(_section(f"{title}{of}", group, f"{prefix}." if prefix else ""))
    parts += [_section(f"`reward.terms.{name}.*`", term, f"reward.terms.{name}.") for name, term in BUILT_IN.items()]
    return "\n".join(parts)


def groups_text(command: str) -> str:
    """The config groups that a command uses, each with its choices, for `--help`."""
    options = config_groups([conf_dir()])
    return "\n".join(f"{name}: {', '.join(options[name])}" for name in sorted(groups_of(command) - HIDDEN))


def help_text(command: str, composed: DictConfig) -> str:
    """The settings of a command with their values in `composed` and their meanings, for `--help`."""
    lines: list[str] = []

    def add(group: type, prefix: str) -> None:
        for setting in settings_of(group, prefix):
            if isinstance(setting, Setting):
                lines.extend(_help_lines(setting, composed))
            elif OmegaConf.select(composed, setting[0]) is not None:
                lines.extend(["", f"{setting[0]}: {_summary(setting[1])}"])
                add(setting[1], f"{setting[0]}.")

    add(SCHEMAS[COMMANDS[command].conf or command], "")
    return "\n".join(lines)


def _help_lines(setting: Setting, composed: DictConfig) -> list[str]:
    value = OmegaConf.select(composed, setting.key)
    shown = OmegaConf.to_container(value, enum_to_str=True) if OmegaConf.is_config(value) else value
    head = f"{setting.key}={override_value(shown)}"
    return [head, *textwrap.wrap(_explained(setting), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)]


def _explained(setting: Setting) -> str:
    choices = f"One of {', '.join(setting.choices)}." if setting.choices else ""
    return f"{setting.meaning} {choices}".strip()


def _section(title: str, group: type, prefix: str) -> str:
    rows = [setting for setting in settings_of(group, prefix) if isinstance(setting, Setting)]
    lines = [f"## {title}", "", _summary(group), ""]
    if rows:
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{row.key}` | {f'`{row.default}`' if row.default else ''} | {_explained(row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _groups(prefix: str, group: type) -> Iterator[tuple[str, type]]:
    yield prefix, group
    for setting in settings_of(group, f"{prefix}." if prefix else ""):
        if not isinstance(setting, Setting):
            yield from _groups(*setting)


def _summary(group: type) -> str:
    return " ".join((inspect.getdoc(group) or "").split("\n\n")[0].split())


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types in a type hint, also inside `| None`, list[...] and dict[...]."""
    if isinstance(hint, UnionType) or get_origin(hint) in (list, tuple, dict):
        return tuple(kind for argument in get_args(hint) for kind in _kinds(argument))
    return (hint,)


def register_help() -> None:
    """Let the help templates of conf/ use ${groups_help:<command>}, ${settings_help:<command>} and ${flags_help:}."""

    def settings_help(command: str, *, _root_: DictConfig) -> str:
        return help_text(command, _root_).replace("$", "$$")  # Hydra substitutes $NAME afterwards

    OmegaConf.register_new_resolver("settings_help", settings_help, replace=True)
    OmegaConf.register_new_resolver("groups_help", groups_text, replace=True)
    OmegaConf.register_new_resolver("flags_help", lambda: FLAGS_HELP.replace("$", "$$"), replace=True)
    # Hydra lists its own groups and ours for every help, which takes seconds; no template of conf/ shows its lists.
    Hydra.format_config_groups = lambda *_, **__: ""  # type: ignore[method-assign]


def _choices(kinds: tuple[Any, ...]) -> tuple[str, ...]:
    enums: list[Any] = [kind for kind in kinds if isinstance(kind, EnumType)]
    return tuple(str(choice) for enum in enums for choice in enum)
