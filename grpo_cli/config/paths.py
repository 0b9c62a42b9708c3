"""Paths in settings, which must mean the same wherever a run is resumed or looked at."""

import os
from pathlib import Path
from typing import Any

KEYS = ("path", "pass_rates")  # of data, models and reward models; a hub id stays as it is


def with_absolute_paths(settings: Any) -> Any:
    """The plain settings, with the whole path of every file and folder of this machine that they name.

    >>> with_absolute_paths({"model": {"path": "builtin:make_zero"}, "data": {"path": "/"}, "steps": 3})
    {'model': {'path': 'builtin:make_zero'}, 'data': {'path': '/'}, 'steps': 3}
    """
    if isinstance(settings, list):
        return [with_absolute_paths(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: _absolute(value) if key in KEYS and isinstance(value, str) else with_absolute_paths(value)
        for key, value in settings.items()
    }


def _absolute(path: str) -> str:
    place = Path(path).expanduser()
    # A hub id may be the name of a file here, as `gpt2`; data are files with an ending, or folders as models are.
    is_here = place.is_dir() or (place.is_file() and place.suffix)
    return os.path.abspath(place) if is_here else path
