"""Start the ranks of a run on this machine, wait for them and report errors."""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cli import stop
from grpo_cli.config.commands import COMMAND_OF_LOOP
from grpo_cli.errors import R1ZeroError, Stopped, TrainingError
from grpo_cli.launch.rank_errors import error_file, first_error, remove_error_files
from grpo_cli.launch.requests import Requests, exit_status, print_if_open
from grpo_cli.launch.restarts import Restarts, how_it_ended
from grpo_cli.launch.worker import resume_hint

if TYPE_CHECKING:
    from torch.distributed import TCPStore

WORKER = "grpo_cli.launch.worker"
LOCALHOST = "127.0.0.1"  # the machine's own name may not resolve
POLL_S = 0.1
EXIT_WITHIN_S = 0.5  # a rank that is asked to stop before its first step ends within this time
GRACE_S = 5.0  # once one rank has failed, the others have this time to end by themselves


def launch(loop: str, config_file: Path, num_ranks: int, num_restarted: int = 0) -> None:
    """Run `loop` on each rank, with the settings in `config_file`, and wait until all ranks have ended.

    Raises the error that a rank reports, with its original type, or a TrainingError with the rank's traceback and the
    path of its log. The last `num_restarted` ranks are started again instead, and end with the others. On a request to
    stop, a run that is in a step saves it first.
    """
    run_dir = config_file.parent
    remove_error_files(run_dir / "logs")
    with (
        Requests(stop.REQUESTS) as requests,
        socket.create_server((LOCALHOST, 0)) as server,  # only reachable locally
        _ranks(loop, config_file, num_ranks, server.getsockname()[1]) as (processes, start),
    ):
        store = _rank_store(server)
        codes = _wait(processes, requests, Restarts(num_ranks - num_restarted, processes, start, run_dir / "logs"))
    del store  # only now: the ranks have ended
    if codes is not None and not any(codes.values()):
        return
    error = _explain(run_dir / "logs", codes) if codes is not None else None
    if error is None:
        cause = requests.first.name if requests.first else "a signal to a rank"
        error = Stopped(f"Stopped by {cause}.")
    if isinstance(error, Stopped):
        error = Stopped(f"{error} {resume_hint(COMMAND_OF_LOOP[loop], run_dir)}")
        if requests.first:
            error.exit_status = exit_status(requests.first)
    raise error


def _rank_store(server: socket.socket) -> "TCPStore":
    """A store in this process at the server's port, through which the ranks find each other.

    The ranks import torch at the same time as this process, and may connect earlier: then they wait for the store.
    """
    from torch.distributed import TCPStore

    gc.freeze()  # otherwise Python visits every object of torch when it exits, which takes a second
    port = server.getsockname()[1]
    return TCPStore(LOCALHOST, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach())


@contextmanager
def _ranks(
    loop: str, config_file: Path, num_ranks: int, port: int
) -> Iterator[tuple[dict[int, subprocess.Popen], Callable[[int], None]]]:
    """The process of each rank, and a function that starts a rank in a new one.

    At the end, those that still run are killed with all their children.
    """
    environment = {
        **os.environ,
        "MASTER_ADDR": LOCALHOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # tells torch that the store is not in rank 0
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
    }
    processes: dict[int, subprocess.Popen] = {}

    def start(rank: int) -> None:
        processes[rank] = subprocess.Popen(
            # -P: without the current folder on sys.path, where a file could have the name of a library.
            [sys.executable, "-P", "-m", WORKER, loop, str(config_file)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,  # no library can ask the user a question
            start_new_session=True,  # the terminal's signals only reach the launcher, which passes them on
        )

    try:
        for rank in range(num_ranks):
            start(rank)
        yield processes, start
    finally:
        for process in processes.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(processes: Mapping[int, subprocess.Popen], requests: Requests, restarts: Restarts) -> dict[int, int] | None:
    """Wait until all ranks have ended, except those that `restarts` starts, or for a short time after one has failed.

    Returns the exit codes, by rank, of those that have ended; None after a second request to stop.
    """
    asked_at, has_printed, give_up_at = None, False, float("inf")
    while True:
        restarts.start_dead()
        codes = {rank: process.returncode for rank, process in processes.items() if process.poll() is not None}
        if codes.keys() >= set(restarts.needed) or time.monotonic() > give_up_at:
            return codes
        if any(codes.values()):
            give_up_at = min(give_up_at, time.monotonic() + GRACE_S)
        elif requests.is_repeated:
            return None
        elif requests.first and asked_at is None:
            asked_at = time.monotonic()
            for rank in restarts.needed:  # the others end with them
                processes[rank].send_signal(signal.SIGUSR1)
        elif asked_at and requests.first and not has_printed and time.monotonic() > asked_at + EXIT_WITHIN_S:
            has_printed = True
            print_if_open(
                f"\n{requests.first.name}: the run saves at the end of this step. A second {requests.first.name} ends "
                "it immediately."
            )
        time.sleep(POLL_S)


def _explain(logs: Path, codes: Mapping[int, int]) -> R1ZeroError | None:
    """Why the run ended, from the exit codes of its ranks and their error files in `logs`.

    None if a request to stop ended a rank that could not save.
    """
    unexplained = {rank: code for rank, code in codes.items() if code and not error_file(logs, rank).exists()}
    killed = {rank: -code for rank, code in unexplained.items() if code < 0}
    if any(number in stop.REQUESTS for number in killed.values()):
        return None
    if not killed and (error := first_error(logs)):
        return error
    if killed:  # the other ranks only report that this one is gone
        rank, number = next(iter(killed.items()))
        how = how_it_ended(-number)
    else:
        rank, code = next(iter(unexplained.items()))
        how = f"{how_it_ended(code)} and no error message"
    return TrainingError(f"Rank {rank} {how}. Its log: {logs}/rank_{rank}.log")
