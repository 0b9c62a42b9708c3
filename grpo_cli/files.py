"""Files that are whole at any time, even if the process is killed while it writes."""

from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write `text` next to `file`, then rename: readers see the old file or the new one."""
    written = file.with_name(f"{file.name}.tmp")
    written.write_text(text, encoding="utf-8")
    written.replace(file)
