"""Absolute paths in settings, so that a run can be resumed or read from any working folder."""

import os
from pathlib import Path
from typing import Any

KEYS = ("path", "pass_rates", "replay")  # settings that hold a path or a Hub id


def with_absolute_paths(settings: Any) -> Any:
    """The plain settings, with the absolute path of every file and folder of this machine; Hub ids stay.

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
    expanded = Path(path).expanduser()
    # A file without a suffix may happen to have the name of a Hub id, such as `gpt2`; models are always folders.
    is_local = expanded.is_dir() or (expanded.is_file() and expanded.suffix)
    return os.path.abspath(expanded) if is_local else path
