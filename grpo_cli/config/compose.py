"""Compose the files of conf/ and the command line into one typed configuration."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.grammar import escaped
from grpo_cli.config.paths import with_absolute_paths
from grpo_cli.config.resolvers import register_resolvers
from grpo_cli.errors import SetupError
from grpo_cli.secret import mapped

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
    resolved = with_absolute_paths(OmegaConf.to_container(composed, resolve=True))
    # Escaped, so that a text such as ${x} is not resolved a second time.
    return OmegaConf.to_object(OmegaConf.merge(_schema(command), mapped(resolved, escaped)))


@cache
def _schema(command: str) -> DictConfig:
    return OmegaConf.structured(SCHEMAS[command])  # merging copies it


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
