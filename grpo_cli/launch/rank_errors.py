"""The error files that ranks leave in <run>/logs for the launcher."""

import json
from pathlib import Path

from grpo_cli import errors


def remove_error_files(logs: Path) -> None:
    """Remove the error files of an earlier start."""
    for file in logs.glob("rank_*.error.json"):
        file.unlink()


def error_file(logs: Path, rank: int) -> Path:
    return logs / f"rank_{rank}.error.json"


def is_ours(logs: Path, rank: int) -> bool:
    """Whether the rank has left an error that is in grpo_cli.errors."""
    file = error_file(logs, rank)
    return file.exists() and hasattr(errors, json.loads(file.read_text(encoding="utf-8"))["kind"])


def first_error(logs: Path) -> errors.R1ZeroError | None:
    """The error of the rank that failed first, with its original type; None if no rank has left an error.

    An error that is not in grpo_cli.errors becomes a TrainingError with its traceback.
    """
    files = sorted(logs.glob("rank_*.error.json"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        return None
    report = json.loads(files[0].read_text(encoding="utf-8"))
    error_type = getattr(errors, report["kind"], None)
    if error_type is not None:
        return error_type(report["message"])
    return errors.TrainingError(f"{report['traceback']}\nThe whole log: {logs}/")
