"""The faults that ranks leave in <run>/logs, for whoever started them."""

import json
from pathlib import Path

from grpo_cli import errors


def forget(logs: Path) -> None:
    """Remove what the ranks of an earlier start have left."""
    for stale in logs.glob("rank_*.error.json"):
        stale.unlink()


def of_rank(logs: Path, rank: int) -> Path:
    """The file of this rank's fault."""
    return logs / f"rank_{rank}.error.json"


def first(logs: Path) -> errors.R1ZeroError | None:
    """The fault of the rank that failed first, as what it was; one that no setting fixes comes with its traceback.

    None where no rank has left any.
    """
    reports = sorted(logs.glob("rank_*.error.json"), key=lambda file: file.stat().st_mtime_ns)
    if not reports:
        return None
    report = json.loads(reports[0].read_text())
    kind = getattr(errors, report["kind"], None)
    if kind is not None:
        return kind(report["message"])
    return errors.TrainingError(f"{report['traceback']}\nThe whole log: {logs}/")
