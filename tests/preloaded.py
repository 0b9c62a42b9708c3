"""Runs commands and ranks in forks of one process that has imported torch, vLLM and DeepSpeed: most of a start's time.

A server: a line of standard input asks for a command or a program (see `main`), and a line of standard output has its
exit statuses. The server has no engine, so that it can be forked. Tests that stop or kill runs start real processes.
"""

import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grpo_cli import stop
from grpo_cli.config.cluster import ClusterConfig, VLLMConfig
from grpo_cli.config.commands import COMMANDS, LOOPS
from grpo_cli.launch import worker  # does not import torch


def fork(run: Callable[[], None]) -> int:
    """The id of a new process that calls `run` and exits as Python would."""
    process = os.fork()
    if process:
        return process
    status: Any = 0
    try:
        run()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def end_of(process: int) -> int:
    """Its exit status; the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Forked:
    """What r1zero uses of subprocess.Popen, for a rank or a stage of a pipeline: it has the imports of this process."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, **_: Any) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        if worker.__name__ in command:
            self.pid = fork(partial(run_rank, *command[-2:], env))
        else:
            self.pid = fork(partial(run_command, command[command.index("grpo_cli.cli") + 1 :]))

    def poll(self) -> int | None:
        if self.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self.returncode = end_of(self.pid)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def run_rank(loop: str, config_file: str, environment: dict[str, str]) -> None:
    import torch

    set_environment = worker._set_environment

    def also_for_torch(*cluster: Any, **options: Any) -> None:
        set_environment(*cluster, **options)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch read it when it was imported

    os.setsid()
    reset_signals()
    os.environ.clear()
    os.environ.update(environment)
    worker._set_environment = also_for_torch
    worker.main(loop, Path(config_file))
    os._exit(0)  # as a rank does


def reset_signals() -> None:
    for number in stop.REQUESTS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def run_command(arguments: list[str]) -> None:
    from grpo_cli import cli
    from grpo_cli.launch import local
    from grpo_cli.pipeline import run as stages

    reset_signals()
    for module in (local, stages):
        module.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})
    sys.argv = ["r1zero", *arguments]
    cli.main()


def run_program(text: str, arguments: list[str]) -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.argv = ["-c", *arguments]
    exec(text, {"__name__": "__main__"})
    os._exit(0)  # as a rank does


def run(request: dict[str, Any], environment: dict[str, str]) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[file], os.O_WRONLY | os.O_APPEND), number)
    signal.alarm(request["timeout"])  # kills this process
    {"command": run_command, "program": run_program}[request["run"]](**request["arguments"])


def main() -> None:
    """Answer requests. A request is run once for each of its environments, at the same time."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print while they are imported
    import_all()
    for line in sys.stdin:
        request = json.loads(line)
        processes = [fork(partial(run, request, environment)) for environment in request["environments"]]
        print(json.dumps([end_of(process) for process in processes]), file=answers, flush=True)


def import_all() -> None:
    """Import what any rank imports, with the environment in which ranks do it."""
    before = dict(os.environ)
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    worker._set_environment(ClusterConfig(vllm=VLLMConfig(enforce_eager=True)), verbose=False)
    for loop in LOOPS.values():
        pkgutil.resolve_name(loop)
    for name in COMMANDS:
        pkgutil.resolve_name(f"grpo_cli.commands.{name.replace('-', '_')}")
    os.environ.clear()
    os.environ.update(before)


if __name__ == "__main__":
    main()
