"""Users' Python functions: finding them, and showing where they fail."""

import importlib.util
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from grpo_cli.errors import ConfigError

OURS = (str(Path(__file__).parent) + os.sep, "<frozen ")
PYTHON = sysconfig.get_path("stdlib") + os.sep
PACKAGES = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))


def users_function(setting: str, function: str, *, example: str, is_called: str) -> Callable[..., Any]:
    """Returns the function that `setting` names, as file.py:name or module:name.

    Raises ConfigError if it cannot be found or its module cannot be imported. `example` is a name for the error, and
    `is_called` says what such a function gets and returns.
    """
    key = f"{setting}={function}"
    place, _, attribute = function.rpartition(":")
    file = Path(place).expanduser().absolute()
    if file.suffix == ".py" and not file.is_file():
        raise ConfigError(f"{key}: there is no file {file}. Give its path from this folder, or its full path.")
    try:
        if file.suffix == ".py":
            found = attrgetter(attribute)(_module_in(file))
        else:
            _import_also_from(Path.cwd())
            found = pkgutil.resolve_name(function)
    except (Exception, SystemExit) as error:
        if users_frames(error) or isinstance(error, SyntaxError):
            raise ConfigError(f"{key}: its module fails during import:\n{users_traceback(error)}") from error
        name = example.rpartition(":")[2]
        raise ConfigError(
            f"{key}: cannot be imported ({error}). Write {example} for a file, or "
            f"my_package.my_module:{name} for a module that is installed or in this folder."
        ) from error
    if not callable(found):
        raise ConfigError(f"{key}: is not a function. Give a function of {is_called}.")
    return found


def _module_in(file: Path) -> ModuleType:
    """The module in a file, which may import others from its folder. It is imported once."""
    name = str(file.with_suffix(""))  # with its folder, so that it does not replace a library of the same name
    if name not in sys.modules:
        _import_also_from(file.parent)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # first: dataclasses look their module up
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _import_also_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that a file there does not hide a library with the same name


def users_traceback(error: BaseException) -> str:
    """The lines of a traceback that are in the user's own files, or otherwise in packages, and the error itself."""
    frames = users_frames(error) or _frames(error)
    return "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)]).rstrip()


def users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in _frames(error) if not frame.filename.startswith(PACKAGES)]


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames outside of r1zero and Python's own library. Packages may be installed in a folder of that library."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(OURS)
        if frame.filename.startswith(PACKAGES) or not frame.filename.startswith(PYTHON)
    ]
