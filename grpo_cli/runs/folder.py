"""The folder that a command runs in: it is locked, config.yaml holds the frozen settings, code.json the code."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from grpo_cli.errors import SetupError, Stopped
from grpo_cli.files import write_whole
from grpo_cli.runs.code import FILE as CODE_FILE
from grpo_cli.runs.code import record_code
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.lock import LAUNCHER_LOCK, WRITER_LOCK, locked

EMPTY = (LAUNCHER_LOCK, WRITER_LOCK, "config.yaml", CODE_FILE)  # in the folder of a run that has not done anything
LOGS = "logs"  # a start that failed while it loaded leaves them, and the next one appends to them


@contextmanager
def run_folder_lock(folder: Path, config: Any, check: Callable[[], None]) -> Iterator[Path]:
    """Create the folder if it is missing, lock it and write settings and code. Yields the path of config.yaml.

    `check` is called before the folder changes and may raise. Raises SetupError if the folder cannot be written or is
    in use, also by ranks whose launcher is gone. If the `with` block fails before a rank has written anything, the
    folder is removed, unless it held something before.
    """
    with ExitStack() as stack:
        try:
            check()  # before anything is created
            is_new = not folder.exists() or not any(folder.iterdir())
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LAUNCHER_LOCK, wait_s=0))
            with locked(folder / WRITER_LOCK):
                check()  # again, now that no other process can change the folder
                config_file = folder / "config.yaml"
                write_whole(config_file, frozen_text(config))
                record_code(folder)
        except OSError as error:
            raise SetupError(
                f"{folder} cannot be written: {error.strerror}. Fix that, or set another run.dir."
            ) from error
        try:
            yield config_file
        except BaseException as error:
            if is_new and not isinstance(error, Stopped) and all(path.name in EMPTY for path in folder.iterdir()):
                shutil.rmtree(folder)
                with suppress(OSError):  # not empty: it holds more than this folder
                    folder.parent.rmdir()
            raise


def new_folder(wanted: Path) -> Path:
    """Create a folder that no other start uses: `wanted`, or if it exists, with a number after its name."""
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for name in (wanted.name, *(f"{wanted.name}_{number}" for number in range(2, 1000))):
            with suppress(FileExistsError):
                (folder := wanted.with_name(name)).mkdir()
                return folder
    except OSError as error:
        raise SetupError(f"{wanted} cannot be created: {error.strerror}. Set another run.dir.") from error
    raise SetupError(f"{wanted} and its numbered names exist already. Set another run.dir.")


def is_unused(folder: Path) -> bool:
    """Whether a run can start in the folder: it is missing, empty, or left by a start that failed while it loaded."""
    return not folder.exists() or all(path.name in (*EMPTY, LOGS) for path in folder.iterdir())
