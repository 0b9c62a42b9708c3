"""Atomic writes: a file stays complete even if the process is killed while it writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo_cli.errors import SetupError


def write_whole(file: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file next to `file` and rename it: readers see the old file or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    with temporary.open("wb") as opened:
        opened.write(content.encode() if isinstance(content, str) else content)
        opened.flush()
        os.fsync(opened.fileno())  # otherwise a power cut may leave the new name with nothing in it
    temporary.replace(file)


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """A context that turns an OSError into a SetupError which names `path`."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path} cannot be written: {error.strerror}. Free some space there. Then resume=<the run's folder> "
            "resumes from the last checkpoint."
        ) from error
