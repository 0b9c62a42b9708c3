"""Programs that take turns, one step at a time, each in a separate process.

Other load on the machine then slows all of them equally: the times vary, but the ratio of the times in one round does
not.
"""

import multiprocessing
import os
import signal
import socket
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

READY_S = 600  # time limit for a step
ROUNDS_PER_PROCESS = 5  # then new processes start, because one process may always be a few percent slower than another
SAMPLE_EVERY_S = 0.02
RANK_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
RANK_VARIABLES |= {"VLLM_ENABLE_V1_MULTIPROCESSING"}  # set only for ranks; other processes use vLLM's default

Step = tuple[float, dict[str, float]]  # seconds, report


class Peak:
    """The largest value of `read()` from now on, sampled by a thread every 20 ms."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._largest = read()
        threading.Thread(target=self._watch, daemon=True).start()

    def largest(self) -> float:
        return max(self._largest, self._read())

    def _watch(self) -> None:
        while True:
            time.sleep(SAMPLE_EVERY_S)
            self._largest = max(self._largest, self._read())


def peak_gib() -> float:
    """The peak memory of this process. On a GPU: the peak GPU memory of all processes since the first call, including
    memory that they cache.
    """
    import torch

    if torch.cuda.is_available():
        return _gpu_peak().largest()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20


@cache
def _gpu_peak() -> Peak:
    return Peak(gpu_gib)


def gpu_gib() -> float:
    """The GPU memory that all processes use now."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


class Failed(RuntimeError):
    """A runner raised an error or its process died; contains its name and, if there is one, the traceback."""

    def __init__(self, runner: str, error: str) -> None:
        super().__init__(f"{runner}: {error}")
        self.runner = runner
        self.last_line = error.strip().splitlines()[-1]

    @property
    def summary(self) -> str:
        """The failure in one line."""
        return f"{self.runner} failed: {self.last_line}"


class Turns:
    """The runner's side: `wait` blocks until it is the runner's turn."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait(self, report: Mapping[str, float] | None = None) -> None:
        """Called before each step, with the report of the step before."""
        self._pipe.send(dict(report or {}))
        self._pipe.recv()


class Runner:
    """The relay's side: a process that runs `program(turns, *arguments)` until `close` kills it."""

    def __init__(self, name: str, program: Callable[..., None], *arguments: Any) -> None:
        self._name = name
        self._pipe, other = multiprocessing.Pipe()
        self._folder = tempfile.TemporaryDirectory(prefix="r1zero_bench_")
        context = multiprocessing.get_context("spawn")  # each process has its own imports and environment
        self._process = context.Process(target=_run, args=(other, self._folder.name, program, arguments))
        self._process.start()
        other.close()
        try:
            self._report()
        except BaseException:
            self.close()
            raise

    def step(self) -> Step:
        """The seconds of one step, and the program's report."""
        started = time.perf_counter()
        with suppress(BrokenPipeError):  # the process died while it waited: `_report` raises Failed
            self._pipe.send(None)
        report = self._report()
        return time.perf_counter() - started, report

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # includes the processes that it started
        self._process.kill()  # if it has no process group yet
        self._process.join()
        self._folder.cleanup()

    def _report(self) -> dict[str, float]:
        deadline = time.monotonic() + READY_S
        # The pipe alone does not show that the process died: its child processes may keep the other end open.
        while not self._pipe.poll(1):
            if not self._process.is_alive() and not self._pipe.poll():
                raise self._died()
            if time.monotonic() > deadline:
                raise Failed(self._name, f"a step takes more than {READY_S} s")
        try:
            report = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if isinstance(report, str):
            raise Failed(self._name, report)
        return report

    def _died(self) -> Failed:
        self._process.join()
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return Failed(self._name, f"its process {how}" + (", perhaps out of memory" if code == -signal.SIGKILL else ""))


def _run(pipe: Connection, folder: str, program: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.setpgrp()
    os.environ["TMPDIR"] = folder  # so that temporary files are deleted even if the process is killed
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        program(Turns(pipe), *arguments)
    except BaseException:
        pipe.send(traceback.format_exc())
        raise


def on_ranks(number: int, turns: Turns, program: Callable[..., None], *arguments: Any) -> None:
    """Run `program(turns, *arguments)` as `number` ranks on this machine; only the first rank waits for turns."""
    os.environ |= {"WORLD_SIZE": f"{number}", "LOCAL_WORLD_SIZE": f"{number}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{_free_port()}"}
    for rank in range(1, number):
        multiprocessing.Process(target=_as_rank, args=(rank, None, program, arguments)).start()
    _as_rank(0, turns, program, arguments)


def no_rank() -> dict[str, str]:
    """The environment for a process that is not a rank, even if this process is one."""
    return {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}


def _as_rank(rank: int, turns: Turns | None, program: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
    program(turns, *arguments)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass(frozen=True)
class Times:
    """The seconds and reports of one runner, one per round."""

    seconds: list[float]
    reports: list[dict[str, float]]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def median_of(self, figure: Callable[[float, Mapping[str, float]], float]) -> float:
        """The median of a figure computed from the seconds and the report of each round."""
        return statistics.median(map(figure, self.seconds, self.reports))

    def over(self, other: Self) -> float:
        """The median of the ratios to `other` in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


def relay(runners: Mapping[str, tuple], *, rounds: int, warm_up: int = 2) -> dict[str, Times]:
    """The times of `rounds` steps of each runner, a (program, *arguments). Each round starts with another runner.

    Every few rounds all runners are started again. Raises Failed if one raises an error or dies.
    """
    all_steps: dict[str, list[Step]] = {name: [] for name in runners}
    order = list(runners)
    for first in range(0, rounds, ROUNDS_PER_PROCESS):
        with _started(runners) as started:
            for number in range(-warm_up, min(ROUNDS_PER_PROCESS, rounds - first)):
                for name in order:
                    step = started[name].step()
                    if number >= 0:
                        all_steps[name].append(step)
                order.append(order.pop(0))
    return {name: _times(steps) for name, steps in all_steps.items()}


def race(
    runners: Mapping[str, tuple], *, is_done: Callable[[Sequence[Mapping[str, float]]], bool], max_steps: int
) -> dict[str, Times]:
    """The times of the steps of each runner until `is_done` is true for its reports; the runners take turns.

    Raises Failed if one raises an error, dies, or is not done after `max_steps` steps.
    """
    all_steps: dict[str, list[Step]] = {name: [] for name in runners}
    with _started(runners) as started:
        running = list(started)
        while running:
            for name in list(running):
                steps = all_steps[name]
                if len(steps) == max_steps:
                    raise Failed(name, f"is not done after {max_steps} steps")
                steps.append(started[name].step())
                if is_done([report for _, report in steps]):
                    running.remove(name)
    return {name: _times(steps) for name, steps in all_steps.items()}


@contextmanager
def _started(runners: Mapping[str, tuple]) -> Iterator[dict[str, Runner]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Runner(name, *program))) for name, program in runners.items()}


def _times(steps: Sequence[Step]) -> Times:
    return Times([seconds for seconds, _ in steps], [report for _, report in steps])
