"""Atomic writes: a file stays complete even if the process is killed while it writes."""

from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write `text` to a temporary file next to `file` and rename it: readers see the old file or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
