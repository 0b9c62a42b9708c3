"""The training runs below a folder: what each is, how far it came, and how to resume it."""

import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grpo_cli.analysis.report import read_metrics, read_result
from grpo_cli.config.commands import COMMANDS
from grpo_cli.config.compose import to_typed
from grpo_cli.config.grammar import resume_command
from grpo_cli.errors import R1ZeroError, Stopped
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.lock import WRITER_LOCK
from grpo_cli.runs.resume import checkpoint_folders, command_of

NOT_RUNS = {"checkpoints", "wandb", "logs", "rollouts", "model", ".submitit"}  # folders that hold no runs


class State(StrEnum):
    running = auto()
    finished = auto()
    failed = auto()  # a rank left an error
    stopped = auto()  # by a signal, or by the end of its processes
    empty = auto()  # it has not taken a step
    unreadable = auto()  # its files are damaged, or another version wrote them


@dataclass(frozen=True)
class Run:
    """One run folder. `before` and `after` are the main metric of its evaluations (`metric`) at both ends."""

    folder: Path
    state: State
    command: str = ""
    step: int = 0
    steps: int | None = None
    metric: str = ""
    before: float | None = None
    after: float | None = None
    age_s: float = 0.0  # since its last sign of life
    config: Any = None  # its settings, if the command trains

    @property
    def resume(self) -> str:
        """The command that resumes it; empty if there is nothing to resume."""
        can_resume = self.state in (State.stopped, State.failed) and checkpoint_folders(self.folder)
        return resume_command(self.command, self.folder) if can_resume else ""


def list_runs(root: Path) -> list[Run]:
    """The runs in `root` and in the sweeps and pipelines below it, the newest first."""
    return sorted(map(read_run, _run_folders(root)), key=lambda run: run.age_s)


def _run_folders(folder: Path) -> Iterator[Path]:
    if (folder / "config.yaml").is_file():
        yield folder
        return
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in NOT_RUNS):
        yield from _run_folders(inner)


def read_run(folder: Path) -> Run:
    """The run in a folder with a config.yaml."""
    files = [path for path in (folder / "metrics.jsonl", folder / "config.yaml") if path.is_file()]
    age_s = max(0.0, time.time() - max(path.stat().st_mtime for path in files))
    try:
        return _summary(folder, age_s)
    except (R1ZeroError, OSError, ValueError, YAMLError, OmegaConfBaseException):
        return Run(folder, State.unreadable, age_s=age_s)


def _summary(folder: Path, age_s: float) -> Run:
    stored = read_frozen(folder / "config.yaml", is_ours=False)  # a list needs no secret, which may not be set here
    command = command_of(stored)
    if command is None:
        return Run(folder, State.unreadable, age_s=age_s)
    file = folder / "metrics.jsonl"
    rows = read_metrics(file) if file.is_file() else []
    step = rows[-1]["step"] if rows else 0
    if not COMMANDS[command].saves:  # its settings are in <run.dir>/<command>/
        state = State.running if _is_locked(folder) else State.finished
        return Run(folder.parent, state, command, after=_measured(folder.parent), age_s=age_s)
    config = to_typed(stored, command)
    metric = config.evaluation_metrics()[0]
    values = [row[metric] for row in rows if metric in row]
    return Run(
        folder,
        _state(folder, step),
        command,
        step,
        getattr(config, "steps", None),
        metric,
        values[0] if values else None,
        values[-1] if len(values) > 1 else None,
        age_s,
        config,
    )


def _state(folder: Path, step: int) -> State:
    if _is_locked(folder):
        return State.running
    if read_result(folder) is not None and (folder / "model").is_dir():
        return State.finished
    if not step and not checkpoint_folders(folder):
        return State.empty
    reports = (json.loads(file.read_text(encoding="utf-8")) for file in (folder / "logs").glob("rank_*.error.json"))
    return State.failed if any(report["kind"] != Stopped.__name__ for report in reports) else State.stopped


def _measured(folder: Path) -> float | None:
    """The average over the benchmarks of `r1zero eval`, if it has finished in this folder."""
    file = folder / "eval.json"
    return json.loads(file.read_text(encoding="utf-8"))["macro_average"]["avg"] if file.is_file() else None


def _is_locked(folder: Path) -> bool:
    """Whether a process writes into the folder. The lock is taken for a moment; a start waits longer than that."""
    file = folder / WRITER_LOCK
    if not file.is_file():
        return False
    with file.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def row_of(run: Run) -> dict[str, Any]:
    """The run as JSON."""
    return {
        "folder": str(run.folder),
        "state": run.state.value,
        "command": run.command,
        "step": run.step,
        "steps": run.steps,
        "metric": run.metric,
        "before": run.before,
        "after": run.after,
        "age_s": round(run.age_s),
        "resume": run.resume,
    }
