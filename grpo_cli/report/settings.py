"""What a run is: its settings by name, how they differ from the defaults, and the command that repeats it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from grpo_cli.choices import AdvantageKind, AdvantageReward
from grpo_cli.config.compose import conf_dir, flat_settings, register_schemas, to_typed
from grpo_cli.config.grammar import quoted, shell_word
from grpo_cli.secret import mapped, masked

GROUPS = ("model", "data", "template", "reward", "algorithm", "cluster")
_register_once = cache(register_schemas)
NULL_WITHOUT_FILE = ("critic.",)  # a setting inside null cannot be given alone
NOT_PART_OF_THE_RESULT = ("run.", "resume.", "logger.", "cluster.slurm.")


def describe(config: Any, command: str) -> dict[str, Any]:
    """The chosen option of each group, `changes` (key, value, default of the command) and the command that `repeats`
    the run with the same settings.
    """
    flat = flat_settings(config)
    options = {group: _option(group, flat) for group in GROUPS if any(key.startswith(f"{group}.") for key in flat)}
    with _composer():
        defaults = chosen = _composed(command)
        needed: list[str] = []
        for group, option in options.items():  # the model first: it may choose the template
            if option and option != _option(group, chosen):
                needed.append(f"{group}={option}")
                chosen = _composed(command, *needed)
    own = {key: value for key, value in flat.items() if value != chosen.get(key) and _counts(key)}
    changed = {key: value for key, value in flat.items() if value != defaults.get(key) and _counts(key)}
    removed = sorted({_absent_part(key, flat) for key in chosen.keys() - flat.keys()} - {""})
    words = [*needed, *(f"~{key}" for key in removed), *(f"{key}={_value(value)}" for key, value in own.items())]
    settings = [{"key": key, "value": value, "default": defaults.get(key)} for key, value in changed.items()]
    described = {
        "options": {group: option for group, option in options.items() if option},
        "changes": settings,
        "repeat": " ".join(["r1zero", command, *map(_word, words)]),
    }
    return dict(mapped(described, masked))


def algorithms() -> dict[str, dict[str, Any]]:
    """The advantage and weighting of each method in conf/algorithm that learns from rewards alone, by name."""
    with _composer():
        defaults = _composed("train")
    files = sorted((conf_dir() / "algorithm").glob("*.yaml"))
    found = {file.stem: advantage_settings(defaults | _values(file, "algorithm")) for file in files}
    return {
        name: settings
        for name, settings in found.items()
        if settings["kind"] != AdvantageKind.gae and settings["reward"] != AdvantageReward.none
    }


def advantage_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What the page needs to compute advantages and token weights."""
    prefix = "algorithm.advantage."
    found = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
    return found | {"weighting": flat["algorithm.weighting"]}


@contextmanager
def _composer() -> Iterator[None]:
    """A context in which Hydra composes from conf/, also inside another one, such as a command's own."""
    _register_once()
    hydra = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = hydra


@cache
def _composed(command: str, *overrides: str) -> dict[str, Any]:
    return flat_settings(to_typed(compose(command, ["run.dir=unused", *overrides]), command))


def _option(group: str, flat: Mapping[str, Any]) -> str | None:
    """The file of conf/<group> that agrees with the settings and says most about them; None if every one differs.

    A file that sets a part which is null without it need not agree.
    """
    best, most = None, -1
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        values = _values(file, group)
        is_needed = any(key.startswith(NULL_WITHOUT_FILE) and key in flat for key in values)
        agrees = is_needed or all(flat.get(key) == value for key, value in values.items())
        if agrees and len(values) > most:
            best, most = file.stem, len(values)
    return best


@cache
def _values(file: Path, group: str) -> dict[str, Any]:
    """The flat values of a group's file and of the files of the same group that it starts from."""
    text = file.read_text(encoding="utf-8")
    content: Any = OmegaConf.to_container(OmegaConf.create(text)) or {}
    values: dict[str, Any] = {}
    for other in content.pop("defaults", []):
        if isinstance(other, str) and (file.parent / f"{other}.yaml").is_file():
            values |= _values(file.parent / f"{other}.yaml", group)
    content = content if "_global_" in text.partition("\n")[0] else {group: content}
    return values | flat_settings(OmegaConf.create(content))


def _absent_part(key: str, flat: Mapping[str, Any]) -> str:
    """The outermost part of a key that the settings lack, such as a term of the reward; empty if they have the key."""
    parts = key.split(".")
    for part in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
        if part in flat:  # a plain value, which is set as a whole
            return ""
        if not any(name.startswith(f"{part}.") for name in flat):
            return part
    return ""


def _counts(key: str) -> bool:
    return not key.startswith(NOT_PART_OF_THE_RESULT)


def _word(argument: str) -> str:
    return argument if all(c.isalnum() or c in "=._/+-:@%," for c in argument) else shell_word(argument)


def _value(value: Any) -> str:
    """A value in Hydra's grammar.

    >>> print(_value(None), _value(True), _value([1, "a b"]), _value({"x": 0.5}))
    null true [1,"a b"] {x:0.5}
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
