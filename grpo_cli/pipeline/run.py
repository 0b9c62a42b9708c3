"""Runs the stages of a pipeline, each as a process, and continues where an earlier start ended.

`pipeline.json` in the pipeline's folder has an entry for each stage that was started: its command line, the seconds of
all its starts, and whether it is done.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from grpo_cli import stop
from grpo_cli.errors import CheckpointError, ConfigError, Stopped, TrainingError
from grpo_cli.files import write_whole
from grpo_cli.launch.process import exit_with_parent
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


def run_stages(
    stages: Sequence[Stage], progress: Progress, folder: Path, resume: str, runner: Sequence[str] = R1ZERO
) -> None:
    """Run the stages that are not done, in order, and update `progress`. `resume` is the command that continues later.

    A signal to stop is passed on to the running stage, which saves. Raises Stopped after one, TrainingError if a stage
    fails, each with the exit status to end with.
    """
    with _signals() as received:
        for number, stage in enumerate(stages, 1):
            is_done = progress.get(stage.name, {}).get("done", False)
            if not received:
                print(f"[{number}/{len(stages)}] {stage.name}: {'done before' if is_done else stage.line}", flush=True)
            status = 0 if is_done else 1 if received else _run(stage, progress, folder, runner, received)
            if status == 0:
                continue
            how = f"ended with exit status {status}" if status > 0 else f"was killed by {_name(-status)}"
            error = (
                Stopped(f"Stopped by {_name(received[0])} at {stage.name}. Resume with: {resume}")
                if received
                else TrainingError(
                    f"{stage.name} {how}. Its message is above, its files in {folder}. Resume with: {resume}"
                )
            )
            error.exit_status = exit_status(received[0]) if received else max(status, 1)
            raise error


def _run(stage: Stage, progress: Progress, folder: Path, runner: Sequence[str], received: Sequence[int]) -> int:
    """The exit status of the stage's process, negative if a signal ended it; `progress` is saved before and after."""
    entry = progress.setdefault(stage.name, {"words": stage.words, "seconds": 0.0, "done": False})
    write_whole(folder / PROGRESS, json.dumps(progress, indent=2))
    start = time.monotonic()
    process = subprocess.Popen(
        [*runner, *stage.words],
        process_group=0,  # otherwise Ctrl-C would reach it twice: from the terminal, and passed on
        preexec_fn=partial(exit_with_parent, os.getpid()),
    )
    num_passed_on, status = 0, None
    while status is None:
        for number in received[num_passed_on:]:
            process.send_signal(number)
            num_passed_on += 1
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=POLL_S)
    entry |= {"seconds": round(entry["seconds"] + time.monotonic() - start, 3), "done": status == 0}
    write_whole(folder / PROGRESS, json.dumps(progress, indent=2))
    return status


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
