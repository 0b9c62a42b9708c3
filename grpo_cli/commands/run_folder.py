"""The folder that a command runs in: its settings frozen in config.yaml, and one start of it at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from grpo_cli.config.frozen import frozen_text
from grpo_cli.errors import SetupError
from grpo_cli.launch.lock import LAUNCHER_LOCK, WRITER_LOCK, locked


@contextmanager
def held(folder: Path, config: Any, check: Callable[[], None]) -> Iterator[Path]:
    """The file of the frozen settings; no other start may use `folder` meanwhile, which is made where it is missing.

    `check` sees the folder as it was, and may refuse it. Raises SetupError where the folder cannot be written or is in
    use, also by the ranks of a launcher that is gone.
    """
    with ExitStack() as stack:
        try:
            check()  # first, so that a folder that is refused is left as it was
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LAUNCHER_LOCK, wait_s=0))
            with locked(folder / WRITER_LOCK):
                check()  # and once no other start can change it
                config_file = folder / "config.yaml"
                written = config_file.with_suffix(".tmp")
                written.write_text(frozen_text(config), encoding="utf-8")
                written.replace(config_file)  # a start that is killed here leaves the old one
        except OSError as error:
            raise SetupError(
                f"{folder} cannot be written: {error.strerror}. Mend it, or set another run.dir."
            ) from error
        yield config_file


def is_empty(folder: Path) -> bool:
    """Whether nothing was written to it but locks, or it is not there."""
    return not folder.exists() or all(path.name in (LAUNCHER_LOCK, WRITER_LOCK) for path in folder.iterdir())
