"""Runs the stages of a pipeline, each as a process, and continues where an earlier start ended.

`pipeline.json` in the pipeline's folder has an entry for each stage that was started: its command line, the seconds of
all its starts, and whether it is done.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo_cli import stop
from grpo_cli.errors import CheckpointError, ConfigError, Stopped, TrainingError
from grpo_cli.files import write_whole
from grpo_cli.launch.process import with_parent
from grpo_cli.launch.requests import exit_status
from grpo_cli.pipeline.stages import Stage

R1ZERO = (sys.executable, "-P", "-m", "grpo_cli.cli")
PROGRESS = "pipeline.json"
POLL_S = 0.2  # a signal is passed on after this time at the latest

Progress = dict[str, dict[str, Any]]  # by stage: words (of its command), seconds, done


def read_progress(folder: Path) -> Progress:
    """The stages that were started in `folder` and whose folders are still there.

    Raises CheckpointError if the file is damaged.
    """
    file = folder / PROGRESS
    try:
        saved = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        started = {name: {key: entry[key] for key in ("words", "seconds", "done")} for name, entry in saved.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error!r}). Remove it: each stage resumes from what it saved. Or set another run.dir."
        ) from error
    return {name: entry for name, entry in started.items() if (folder / name).exists()}


def check_progress(stages: Sequence[Stage], progress: Progress, folder: Path) -> None:
    """Raise ConfigError if a started stage has other settings now, or was made from a stage that must run again."""
    names = [stage.name for stage in stages]
    faults = [f"{name} was started, but is no longer in the pipeline." for name in progress if name not in names]
    faults += progress_faults(stages, progress)
    if faults:
        advice = (
            f"Use the settings of that start, as resume={folder} does, or another run.dir. To run a stage again, "
            f"remove its folder in {folder} and the folders of all stages made from it."
        )
        raise ConfigError("\n".join([*faults, advice]))


def progress_faults(stages: Sequence[Stage], progress: Progress) -> Iterator[str]:
    """Why started stages cannot be continued: other settings now, or made from a stage that must run again."""
    for stage in (stage for stage in stages if stage.name in progress):
        then, now = progress[stage.name]["words"], stage.words
        if then != now:
            before = " ".join(word for word in then if word not in now) or "nothing"
            after = " ".join(word for word in now if word not in then) or "nothing"
            yield f"{stage.name} was started with other settings: {before} then, {after} now."
        for source in stage.uses:
            if not progress.get(source, {}).get("done"):
                yield f"{stage.name} was made from {source}, which must run again."


@dataclass
class _Running:
    stage: Stage
    process: subprocess.Popen[bytes]
    start: float
    num_passed_on: int = 0  # signals


def run_stages(
    stages: Sequence[Stage],
    progress: Progress,
    folder: Path,
    resume: str,
    runner: Sequence[str] = R1ZERO,
    at_once: int = 1,
) -> None:
    """Run the stages that are not done, and update `progress`. `resume` is the command that continues later.

    At most `at_once` run at the same time, in order, but each after those that it uses. A signal to stop is passed on
    to the running stages, which save; if a stage fails, the others get SIGTERM. Raises Stopped after a signal,
    TrainingError if a stage fails, each with the exit status to end with.
    """
    waiting: list[Stage] = []
    running: list[_Running] = []
    numbers = {stage.name: f"[{number}/{len(stages)}] {stage.name}" for number, stage in enumerate(stages, 1)}
    for stage in stages:
        if _is_done(progress, stage.name):
            print(f"{numbers[stage.name]}: done before", flush=True)
        else:
            waiting.append(stage)
    failure: TrainingError | None = None
    with _signals() as received:
        while running or (waiting and not received):
            ready = [stage for stage in waiting if all(_is_done(progress, name) for name in stage.uses)]
            for stage in ready[: at_once - len(running)] if not received else []:
                print(f"{numbers[stage.name]}: {stage.line}", flush=True)
                waiting.remove(stage)
                running.append(_start(stage, progress, folder, runner))
            for run in list(running):
                status = _wait(run, received)
                if status is not None:
                    running.remove(run)
                    _save_end(run, status, progress, folder)
                if status and not received:
                    failure = _failure(run.stage, status, folder, resume)
                    received.append(signal.SIGTERM)  # for the other stages
    if failure is not None:
        raise failure
    if unfinished := [stage.name for stage in stages if not _is_done(progress, stage.name)]:
        error = Stopped(f"Stopped by {_name(received[0])} at {unfinished[0]}. Resume with: {resume}")
        error.exit_status = exit_status(received[0])
        raise error


def _is_done(progress: Progress, name: str) -> bool:
    return bool(progress.get(name, {}).get("done", False))


def _start(stage: Stage, progress: Progress, folder: Path, runner: Sequence[str]) -> _Running:
    """Start the stage's process; `progress` is saved before."""
    progress.setdefault(stage.name, {"words": stage.words, "seconds": 0.0, "done": False})
    write_whole(folder / PROGRESS, json.dumps(progress, indent=2))
    process = subprocess.Popen(
        with_parent([*runner, *stage.words]),
        process_group=0,  # otherwise Ctrl-C would reach it twice: from the terminal, and passed on
    )
    return _Running(stage, process, time.monotonic())


def _wait(run: _Running, received: Sequence[int]) -> int | None:
    """Wait a moment for the process, after passing on the signals that it has not got yet.

    Returns its exit status, negative if a signal ended it, or None if it is still running.
    """
    for number in received[run.num_passed_on :]:
        run.process.send_signal(number)
        run.num_passed_on += 1
    try:
        return run.process.wait(timeout=POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _save_end(run: _Running, status: int, progress: Progress, folder: Path) -> None:
    entry = progress[run.stage.name]
    entry |= {"seconds": round(entry["seconds"] + time.monotonic() - run.start, 3), "done": status == 0}
    write_whole(folder / PROGRESS, json.dumps(progress, indent=2))


def _failure(stage: Stage, status: int, folder: Path, resume: str) -> TrainingError:
    how = f"ended with exit status {status}" if status > 0 else f"was killed by {_name(-status)}"
    error = TrainingError(f"{stage.name} {how}. Its message is above, its files in {folder}. Resume with: {resume}")
    error.exit_status = max(status, 1)
    return error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals to stop, as they are received."""
    received: list[int] = []
    old_handlers = {number: signal.signal(number, lambda it, _: received.append(it)) for number in stop.not_ignored()}
    try:
        yield received
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def _name(number: int) -> str:
    return signal.Signals(number).name
