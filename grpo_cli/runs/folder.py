"""The folder that a command runs in: it is locked, and config.yaml holds the frozen settings."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from grpo_cli.errors import SetupError
from grpo_cli.files import write_whole
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.lock import LAUNCHER_LOCK, WRITER_LOCK, locked


@contextmanager
def run_folder_lock(folder: Path, config: Any, check: Callable[[], None]) -> Iterator[Path]:
    """Create the folder if it is missing, lock it and write the frozen settings. Yields the path of config.yaml.

    `check` is called before the folder changes and may raise. Raises SetupError if the folder cannot be written or is
    in use, also by ranks whose launcher is gone.
    """
    with ExitStack() as stack:
        try:
            check()  # before anything is created
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LAUNCHER_LOCK, wait_s=0))
            with locked(folder / WRITER_LOCK):
                check()  # again, now that no other process can change the folder
                config_file = folder / "config.yaml"
                write_whole(config_file, frozen_text(config))
        except OSError as error:
            raise SetupError(
                f"{folder} cannot be written: {error.strerror}. Fix that, or set another run.dir."
            ) from error
        yield config_file


def is_empty(folder: Path) -> bool:
    """Whether the folder is missing or has nothing in it but locks."""
    return not folder.exists() or all(path.name in (LAUNCHER_LOCK, WRITER_LOCK) for path in folder.iterdir())
