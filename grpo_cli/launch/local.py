"""Start the ranks of a run on this machine, and bring back what became of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.distributed import TCPStore

from grpo_cli import stop
from grpo_cli.config.commands import COMMAND_OF_LOOP
from grpo_cli.errors import R1ZeroError, Stopped, TrainingError
from grpo_cli.launch import faults
from grpo_cli.launch.requests import Requests, exit_status, tell
from grpo_cli.launch.worker import how_to_go_on

WORKER = "grpo_cli.launch.worker"
HERE = "127.0.0.1"  # the machine's own name need not resolve
POLL_S = 0.1
DIES_WITHIN_S = 0.5  # a rank that is asked to stop before its first step
GRACE_S = 5.0  # in which the other ranks can end by themselves, once one has failed


def launch(command: str, config_file: Path, ranks: int) -> None:
    """Run `command` with its frozen configuration on each rank, through grpo_cli.launch.worker, until all end.

    A fault that a rank explains is raised again here, as what it was; any other ends in a TrainingError with the
    rank's traceback and the place of its log. On a request to stop, a run that is in a step saves it first.
    """
    run_dir = config_file.parent
    faults.forget(run_dir / "logs")
    with (
        Requests(stop.REQUESTS) as requests,
        _meeting_point() as port,
        _ranks(command, config_file, ranks, port) as processes,
    ):
        codes = _watch(processes, requests)
    if codes is not None and not any(codes.values()):
        return
    fault = _explain(run_dir / "logs", codes) if codes is not None else None
    if fault is None:
        name = requests.first.name if requests.first else "a signal to a rank"
        fault = Stopped(f"Stopped by {name}. {how_to_go_on(COMMAND_OF_LOOP[command], run_dir)}")
    if isinstance(fault, Stopped) and requests.first:
        fault.exit_status = exit_status(requests.first)
    raise fault


@contextmanager
def _meeting_point() -> Iterator[int]:
    """The port of a store of this process, where the ranks find each other; only this machine reaches it."""
    with socket.create_server((HERE, 0)) as listening:
        port = listening.getsockname()[1]
        store = TCPStore(HERE, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    yield port
    del store


@contextmanager
def _ranks(command: str, config_file: Path, number: int, port: int) -> Iterator[list[subprocess.Popen]]:
    """The processes of the ranks; those that still run at the end are killed, with what they have started."""
    environment = {
        **os.environ,
        "MASTER_ADDR": HERE,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's word for a store that no rank has to hold
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
    }
    processes: list[subprocess.Popen] = []
    try:
        for rank in range(number):
            processes.append(
                subprocess.Popen(
                    # Without the current folder on its path, where a file may have the name of a library.
                    [sys.executable, "-P", "-m", WORKER, command, str(config_file)],
                    env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.DEVNULL,  # nothing that a rank loads may ask a question
                    start_new_session=True,  # the terminal's signals reach the launcher alone, which passes them on
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _watch(processes: Sequence[subprocess.Popen], requests: Requests) -> dict[int, int] | None:
    """The exit codes by rank, once all have ended, or shortly after one has failed: of those that have ended by then.

    None where a second request to stop came first.
    """
    asked_at, has_told, give_up_at = None, False, float("inf")
    while True:
        codes = {rank: process.returncode for rank, process in enumerate(processes) if process.poll() is not None}
        if len(codes) == len(processes) or time.monotonic() > give_up_at:
            return codes
        if any(codes.values()):
            give_up_at = min(give_up_at, time.monotonic() + GRACE_S)
        elif requests.is_repeated:
            return None
        elif requests.first and asked_at is None:
            asked_at = time.monotonic()
            for process in processes:
                process.send_signal(signal.SIGUSR1)
        elif asked_at and not has_told and time.monotonic() > asked_at + DIES_WITHIN_S:
            has_told = True
            tell(f"\n{requests.first.name}: the run saves at the end of this step. A second one ends it at once.")
        time.sleep(POLL_S)


def _explain(logs: Path, codes: Mapping[int, int]) -> R1ZeroError | None:
    """What ended the run, by the exit codes of its ranks and what they have left in `logs`.

    None where a request to stop reached a rank that could not save.
    """
    silent = {rank: code for rank, code in codes.items() if code and not faults.of_rank(logs, rank).exists()}
    killed = {rank: -code for rank, code in silent.items() if code < 0}
    if any(number in stop.REQUESTS for number in killed.values()):
        return None
    if not killed and (fault := faults.first(logs)):
        return fault
    if killed:  # what the others report is then that it is gone
        rank, number = next(iter(killed.items()))
        how = f"was killed by {signal.Signals(number).name}"
        how += ", as Linux does when memory runs out" if number == signal.SIGKILL else ""
    else:
        rank, code = next(iter(silent.items()))
        how = f"ended with exit code {code} and gave no reason"
    return TrainingError(f"Rank {rank} {how}. Its log: {logs}/rank_{rank}.log")
