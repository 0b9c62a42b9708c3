"""Atomic writes: a file stays complete even if the process is killed while it writes."""

import os
from pathlib import Path


def write_whole(file: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file next to `file` and rename it: readers see the old file or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    with temporary.open("wb") as opened:
        opened.write(content.encode() if isinstance(content, str) else content)
        opened.flush()
        os.fsync(opened.fileno())  # otherwise a power cut may leave the new name with nothing in it
    temporary.replace(file)
