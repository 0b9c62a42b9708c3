"""The files of a checkpoint: their manifest, how damage is detected, and how folders are renamed and removed.

The file `health` in a checkpoint's folder says what later steps showed about its weights: PROVED or DOUBTED. It is not
in the manifest, because it is written later.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from grpo_cli.errors import CheckpointError
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.runs.resume import MANIFEST

UNFINISHED, REMOVED = ".partial", ".removed"
PROVED, DOUBTED = "proved", "doubted"


def check_whole(checkpoint: Path) -> None:
    """Raise CheckpointError if a file of a checkpoint is missing or differs from what was written."""
    if fault := _damage(checkpoint, share=lambda names: names):
        raise CheckpointError(f"{fault} Give another checkpoint of the run.")


def health(folder: Path) -> str:
    """PROVED if the steps after this checkpoint went well, DOUBTED if they diverged, empty if it is unknown."""
    with suppress(OSError, UnicodeDecodeError):
        return (folder / "health").read_text(encoding="utf-8")
    return ""


def set_health(folder: Path, value: str) -> None:
    with suppress(OSError):  # the disk is full or the folder is read-only: it stays unknown
        (folder / "health").write_text(value, encoding="utf-8")


def damage_seen_by_all(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Each rank checks its share of the files. Called on all ranks."""
    return next(filter(None, gather(_damage(folder, share_of_rank))), None)


def _damage(folder: Path, share: Callable[[Sequence[str]], Sequence[str]]) -> str | None:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{folder} is not complete: it has no {MANIFEST}, which is written last."
    except (OSError, ValueError, KeyError) as error:
        return f"{folder} is damaged: {MANIFEST} cannot be read ({error})."
    for name in share(sorted(files)):
        path, wanted = folder / name, files[name]
        try:
            size = path.stat().st_size
            if size != wanted["size"]:
                return f"{folder} is damaged: {name} has {size} bytes, and {wanted['size']} were written."
            if _hash(path) != wanted["sha256"]:
                return f"{folder} is damaged: {name} differs from what was written (another SHA-256)."
        except OSError as error:
            return f"{folder} is damaged: {name} cannot be read ({error.strerror})."
    return None


def share_of_rank(names: Sequence[str]) -> Sequence[str]:
    """This rank's part of the files, so that no rank reads them all."""
    return names[rank() :: world_size()]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def folders_in(folder: Path) -> list[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def entry(path: Path) -> dict[str, Any]:
    """Flush a file to the disk, and return its entry in the manifest."""
    sync(path)
    return {"size": path.stat().st_size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> str | None:
    """Remove a folder. Returns why it cannot be removed, or None.

    It is renamed first, so that a half-removed folder does not look complete. If it is a symbolic link, only the link
    is removed.
    """
    doomed = folder.with_suffix(REMOVED)
    try:
        if folder.suffix not in (REMOVED, UNFINISHED):
            shutil.rmtree(doomed, ignore_errors=True)
            folder.rename(doomed)
        else:
            doomed = folder
        if doomed.is_symlink():
            target = doomed.resolve()
            doomed.unlink()
            return f"it was a symbolic link, and its files are still in {target}"
        shutil.rmtree(doomed)
    except OSError as error:
        return f"{error.filename or doomed}: {error.strerror or error}"
    return None


def put_aside(folder: Path, suffix: str) -> Path:
    """Rename a checkpoint that the run does not resume from, so that it is not found again. Returns the new path."""
    aside = folder.with_suffix(suffix)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be renamed to {aside.name}: {error.strerror}. Move it out of {folder.parent}."
        ) from error
    return aside
