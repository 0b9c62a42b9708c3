"""Start the ranks of a run on this machine, with torch elastic, and bring back what became of them."""

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from grpo_cli.errors import R1ZeroError, Stopped, TrainingError
from grpo_cli.launch import faults
from grpo_cli.launch.worker import SAVING

WORKER = "grpo_cli.launch.worker"
AT_ONCE, ASKING = ("SIGINT", "SIGHUP", "SIGQUIT"), ("SIGTERM", "SIGUSR1")


def launch(command: str, config_file: Path, ranks: int) -> None:
    """Run `command` with its frozen configuration on each rank, through grpo_cli.launch.worker, until all end.

    A fault that a rank explains is raised again here, as what it was; any other ends in a TrainingError with the
    rank's traceback and the place of its log. SIGTERM and SIGUSR1 let a command save that can.
    """
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it would print each fault a second time
    logs = config_file.parent / "logs"
    faults.forget(logs)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=config_file.parent.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(AT_ONCE if command in SAVING else [*AT_ONCE, *ASKING]),
    )
    try:
        with _requests_passed_on(ASKING if command in SAVING else ()) as requests:
            elastic_launch(config, sys.executable)("-m", WORKER, command, str(config_file))
    except ChildFailedError as error:
        if any(failure.exitcode == -signal.SIGUSR1 for failure in error.failures.values()):  # it was just starting
            raise Stopped(f"Stopped by {requests[0]}. {_how_to_go_on(config_file)}") from None
        raise _explain(logs, error) from None
    except SignalException as stop:
        print(f"\nStopped. {_how_to_go_on(config_file)}", file=sys.stderr)
        raise SystemExit(128 + stop.sigval) from None


def _how_to_go_on(config_file: Path) -> str:
    return f"The same command with resume=auto goes on: {config_file.parent}"


@contextmanager
def _requests_passed_on(asking: Sequence[str]) -> Iterator[list[str]]:
    """These signals ask the ranks to save and leave; a second one ends them at once. The names of those that came."""
    came: list[str] = []

    def ask(number: int, _) -> None:
        came.append(signal.Signals(number).name)
        ranks = [child for child in psutil.Process().children() if WORKER in child.cmdline()]
        if len(came) > 1 or not ranks:
            raise SignalException(f"got {came[-1]}", sigval=signal.Signals(number))
        print(f"\n{came[0]}: the run saves at the end of this step. A second one ends it at once.", file=sys.stderr)
        for process in ranks:
            process.send_signal(signal.SIGUSR1)

    before = {name: signal.signal(signal.Signals[name], ask) for name in asking}
    try:
        yield came
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


def _explain(logs: Path, error: ChildFailedError) -> R1ZeroError:
    silent = _killed(error, logs)
    if silent is None and (fault := faults.first(logs)):
        return fault
    rank, failure = silent or error.get_first_failure()
    return TrainingError(
        f"Rank {rank} ended with exit code {failure.exitcode} and without a word; one that runs out of memory is "
        f"killed with -9. Its log: {logs}/rank_{rank}.log"
    )


def _killed(error: ChildFailedError, logs: Path) -> tuple[int, ProcessFailure] | None:
    """The rank that was killed from outside: what the others report is then that it is gone.

    SIGTERM is what the launcher itself ends the others with.
    """
    for rank, failure in sorted(error.failures.items()):
        was_killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        if was_killed and not (logs / f"rank_{rank}.error.json").exists():
            return rank, failure
    return None
