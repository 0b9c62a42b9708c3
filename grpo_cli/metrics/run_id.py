"""The W&B id of a run folder: made once, so that a resumed run is the same run, and a copy of it another one."""

import secrets
from pathlib import Path

ID, PLACE = "run_id", "run_dir"  # files in <run folder>/wandb; the place is where the id was made or brought


def run_id(run_dir: Path) -> str:
    """The id of this folder, made where it has none. A folder that was copied gets another, one that was moved not."""
    folder = run_dir / "wandb"
    place = str(run_dir.resolve())
    id, home = kept_id(run_dir)
    if home not in (None, place) and kept_id(Path(home))[0] == id:  # the folder that this is a copy of is still there
        id = None
    folder.mkdir(exist_ok=True)
    if id is None:
        id = secrets.token_hex(4)
        (folder / ID).write_text(id, encoding="utf-8")
    (folder / PLACE).write_text(place, encoding="utf-8")
    return id


def kept_id(run_dir: Path) -> tuple[str | None, str | None]:
    """The id that a folder has, and the folder that it was made for; None of what is not known."""
    return tuple(_text(run_dir / "wandb" / name) for name in (ID, PLACE))


def bring_back(run_dir: Path, id: str, place: str | None) -> None:
    """Give a folder that has lost its id that of its checkpoint."""
    if kept_id(run_dir)[0] is None:
        (run_dir / "wandb").mkdir(exist_ok=True)
        if place:
            (run_dir / "wandb" / PLACE).write_text(place, encoding="utf-8")
        (run_dir / "wandb" / ID).write_text(id, encoding="utf-8")


def _text(file: Path) -> str | None:
    return (file.read_text(encoding="utf-8") or None) if file.is_file() else None  # empty where a start died
