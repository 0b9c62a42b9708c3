"""Environment variables used in settings, as in `${oc.env:HF_TOKEN}`, are treated as secrets."""

import os
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from grpo_cli.secret import note_variable

_REQUIRED = object()


def register_resolvers() -> None:
    """Replace OmegaConf's resolver `oc.env` with one that marks the variables it reads as secrets."""
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)


def _variable(name: str, default: Any = _REQUIRED) -> str | None:
    if name in os.environ:
        note_variable(name)
        return os.environ[name]
    if default is _REQUIRED:
        raise InterpolationResolutionError(f"The environment has no variable {name}. Set it, or give this setting.")
    return None if default is None else str(default)
