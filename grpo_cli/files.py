"""Atomic writes: a file stays complete even if the process is killed while it writes."""

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write `text` to a temporary file next to `file` and rename it: readers see the old file or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    with temporary.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())  # otherwise a power cut may leave the new name with nothing in it
    temporary.replace(file)
