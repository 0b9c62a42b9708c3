"""Run the steps of a pipeline one after the other, each a process of its own, and go on where it was cut off.

`pipeline.json` in the pipeline's folder is the manifest: each step with its whole command line, how far it is, when it
began and ended, and the seconds that it took over all its starts.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from grpo_cli import stop
from grpo_cli.errors import CheckpointError, ConfigError, DataError, R1ZeroError
from grpo_cli.launch.process import exit_with_parent
from grpo_cli.launch.requests import exit_status
from grpo_cli.pipeline.plan import Step

R1ZERO = (sys.executable, "-P", "-m", "grpo_cli.cli")
MANIFEST = "pipeline.json"
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
POLL_S = 0.2  # after which a signal that came is passed on at the latest

Record = dict[str, Any]  # a step in the manifest


class StepEnded(R1ZeroError):
    """A step that failed or was stopped: the pipeline leaves with its exit status."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def read_manifest(folder: Path) -> list[Record]:
    """The steps as they stand; none where no pipeline was started in the folder.

    Raises CheckpointError where the file is damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return []
    try:
        return json.loads(file.read_text())["steps"]
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error!r}). Set another run.dir, or remove the file: the steps then go on from what "
            "they saved."
        ) from error


def records_of(steps: Sequence[Step], folder: Path) -> list[Record]:
    """The manifest's steps, with how far each is. What has not begun is taken as it is now.

    A step whose folder is gone has not begun. Raises ConfigError where a step that has begun would now be another.
    """
    there = {record["name"]: record for record in read_manifest(folder) if _has_begun(record, folder)}
    records, faults = [], []
    for step in steps:
        now = {
            **{"name": step.name, "command": step.command, "arguments": step.arguments(folder)},
            **{"sources": step.sources, "takes": list(step.takes.values()), "evaluates": step.evaluates},
        }
        before = there.pop(step.name, None)
        if before and (changed := _changed(before, now)):
            faults.append(f"{step.name} has begun with other settings: {changed}.")
        redone = [record["name"] for record in records if record["name"] in step.sources and record["status"] != DONE]
        if before and redone:
            faults.append(f"{step.name} was made from {redone[0]}, which is to be done again.")
        began = before or {"status": WAITING, "started": None, "ended": None, "seconds": 0.0}
        records.append(now | {key: began[key] for key in ("status", "started", "ended", "seconds")})
    faults += [f"{name} has begun, and is not in the pipeline any more." for name in there]
    if faults:
        raise ConfigError(
            "\n".join(faults)
            + f"\nGive the settings of that start (resume={folder} takes them all) or another run.dir. To do a step "
            f"again, remove its folder in {folder}, and those of what was made from it."
        )
    return records


def run_steps(records: list[Record], folder: Path, runner: Sequence[str] = R1ZERO) -> None:
    """Run what is not done, in order. Requests to stop are passed on to the step, which saves what it can.

    Raises StepEnded where a step fails or is stopped, DataError where one did not leave what another takes.
    """
    with _signals() as came:
        for number, record in enumerate(records, 1):
            if record["status"] == DONE:
                print(f"[{number}/{len(records)}] {record['name']}: done before", flush=True)
                continue
            _stop_if_asked(came, record, folder)
            for path in record["takes"]:
                if not (folder / path).exists():
                    source = path.split("/")[0]
                    raise DataError(
                        f"{record['name']} takes {folder / path}, which {source} did not leave. Correct `takes` in the "
                        f"pipeline's file, or remove {folder / source} to do that step again."
                    )
            print(f"[{number}/{len(records)}] {record['name']}: {command_line(record)}", flush=True)
            record |= {"status": RUNNING, "started": record["started"] or _now(), "ended": None}
            _write(records, folder)
            began = time.monotonic()
            status = _run(record, runner, came)
            record["seconds"] = round(record["seconds"] + time.monotonic() - began, 3)
            record |= {"status": DONE if status == 0 else STOPPED if came else FAILED, "ended": _now()}
            _write(records, folder)
            if status != 0:
                _stop_if_asked(came, record, folder)
                raise StepEnded(_failure(record, status, folder), max(status, 1))


def _stop_if_asked(came: Sequence[int], record: Record, folder: Path) -> None:
    if came:
        name = signal.Signals(came[0]).name
        raise StepEnded(f"Stopped by {name} at {record['name']}. {_how_to_go_on(folder)}", exit_status(came[0]))


def command_line(record: Record) -> str:
    """What a user would type to run the step alone."""
    return shlex.join(["r1zero", record["command"], *record["arguments"]])


def _run(record: Record, runner: Sequence[str], came: list[int]) -> int:
    """The exit status of the step's process, which is negative where a signal ended it."""
    process = subprocess.Popen(
        [*runner, record["command"], *record["arguments"]],
        process_group=0,  # else Ctrl-C would reach it twice: from the terminal, and passed on
        preexec_fn=partial(exit_with_parent, os.getpid()),
    )
    passed_on = 0
    while True:
        for number in came[passed_on:]:
            process.send_signal(number)
            passed_on += 1
        try:
            return process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the requests to stop that have come."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda it, _: came.append(it)) for number in stop.heeded()}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_begun(record: Record, folder: Path) -> bool:
    return record["status"] != WAITING and (folder / record["name"]).exists()


def _changed(before: Record, now: Record) -> str:
    """What one command line has that the other has not; nothing where they are the same."""
    there, here = ([record["command"], *record["arguments"]] for record in (before, now))
    gone, new = [word for word in there if word not in here], [word for word in here if word not in there]
    return " and ".join(f"{' '.join(words)} {where}" for words, where in ((gone, "there"), (new, "now")) if words)


def _failure(record: Record, status: int, folder: Path) -> str:
    how = f"ended with exit status {status}" if status > 0 else f"was killed by {signal.Signals(-status).name}"
    step = folder / record["name"]
    logs = next((logs for logs in (step / "logs", step / record["command"] / "logs") if logs.is_dir()), step)
    return f"{record['name']} {how}; what it says stands above, its logs are in {logs}. {_how_to_go_on(folder)}"


def _how_to_go_on(folder: Path) -> str:
    return f"Go on with: r1zero pipeline resume={shlex.quote(str(folder))}"


def _write(records: list[Record], folder: Path) -> None:
    written = folder / f"{MANIFEST}.tmp"
    written.write_text(json.dumps({"steps": records}, indent=2) + "\n")
    written.replace(folder / MANIFEST)  # whole, or the one before


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
