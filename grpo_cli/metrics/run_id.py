"""The W&B id of a run folder: a resumed run keeps its id, and a copied run folder gets a new one."""

import secrets
from pathlib import Path

ID, PLACE = "run_id", "run_dir"  # files in <run folder>/wandb; run_dir is the folder that the id belongs to


def run_id(run_dir: Path) -> str:
    """The id of this folder; creates one if there is none. A copied folder gets a new id, a moved one keeps its id."""
    folder = run_dir / "wandb"
    place = str(run_dir.resolve())
    id, home = kept_id(run_dir)
    if home not in (None, place) and kept_id(Path(home))[0] == id:  # this is a copy: the original folder still exists
        id = None
    folder.mkdir(exist_ok=True)
    if id is None:
        id = secrets.token_hex(4)
        (folder / ID).write_text(id, encoding="utf-8")
    (folder / PLACE).write_text(place, encoding="utf-8")
    return id


def kept_id(run_dir: Path) -> tuple[str | None, str | None]:
    """A folder's id, and the folder that the id belongs to; each None if unknown."""
    return _text(run_dir / "wandb" / ID), _text(run_dir / "wandb" / PLACE)


def restore_id(run_dir: Path, id: str, place: str | None) -> None:
    """Give a folder without an id the one from its checkpoint."""
    if kept_id(run_dir)[0] is None:
        (run_dir / "wandb").mkdir(exist_ok=True)
        if place:
            (run_dir / "wandb" / PLACE).write_text(place, encoding="utf-8")
        (run_dir / "wandb" / ID).write_text(id, encoding="utf-8")


def _text(file: Path) -> str | None:
    return (
        (file.read_text(encoding="utf-8") or None) if file.is_file() else None
    )  # empty if an earlier start was killed
