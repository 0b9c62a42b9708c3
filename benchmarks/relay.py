"""Programs that take turns, a step at a time, each in a process of its own.

What else the machine does then slows all of them alike, and a ratio of their times within one round means something
where the times themselves do not.
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

READY_S = 600
ROUNDS_OF_A_PROCESS = 5  # one may be some percent slower than its like for all its life
SAMPLE_EVERY_S = 0.02
OF_A_RANK = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
OF_A_RANK |= {"VLLM_ENABLE_V1_MULTIPROCESSING"}  # in the rank's own process; elsewhere vLLM's default

Step = tuple[float, dict[str, float]]  # its seconds, and what was told of it


class Peak:
    """The largest value of `look()` from now on, sampled by a thread every 20 ms."""

    def __init__(self, look: Callable[[], float]) -> None:
        self._look = look
        self._largest = look()
        threading.Thread(target=self._watch, daemon=True).start()

    def largest(self) -> float:
        return max(self._largest, self._look())

    def _watch(self) -> None:
        while True:
            time.sleep(SAMPLE_EVERY_S)
            self._largest = max(self._largest, self._look())


def peak_gib() -> float:
    """The most memory that this process has held; on a GPU, the most that was in use there, by all processes and what
    they keep for reuse included, since the first call.
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
    """GPU memory in use now, by all processes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


class Failed(RuntimeError):
    """A runner that raised, or whose process died: its name, and its traceback where it left one."""

    def __init__(self, runner: str, error: str) -> None:
        super().__init__(f"{runner}: {error}")
        self.runner = runner
        self.last_line = error.strip().splitlines()[-1]

    @property
    def summary(self) -> str:
        """One line."""
        return f"{self.runner} failed: {self.last_line}"


class Turns:
    """A runner's side. It stands still in `wait` until it is its turn."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait(self, report: Mapping[str, float] | None = None) -> None:
        """Called before each step, with what is to be told of the one before."""
        self._pipe.send(dict(report or {}))
        self._pipe.recv()


class Runner:
    """The relay's side: a process that runs `program(turns, *arguments)`, and is killed when it is closed."""

    def __init__(self, name: str, program: Callable[..., None], *arguments: Any) -> None:
        self._name = name
        self._pipe, other = multiprocessing.Pipe()
        self._folder = tempfile.TemporaryDirectory(prefix="r1zero_bench_")
        context = multiprocessing.get_context("spawn")  # each imports, and sets its environment, for itself
        self._process = context.Process(target=_run, args=(other, self._folder.name, program, arguments))
        self._process.start()
        other.close()
        try:
            self._report()
        except BaseException:
            self.close()
            raise

    def step(self) -> Step:
        """The seconds of one step, and what the program tells of it."""
        started = time.perf_counter()
        with suppress(BrokenPipeError):  # it died while it waited: `_report` says how
            self._pipe.send(None)
        report = self._report()
        return time.perf_counter() - started, report

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes it has started
        self._process.kill()  # where it has no group of processes yet
        self._process.join()
        self._folder.cleanup()

    def _report(self) -> dict[str, float]:
        deadline = time.monotonic() + READY_S
        # The pipe alone does not tell of a death: processes that it has started may hold the other end.
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
        return Failed(self._name, f"its process {how}" + (", perhaps for memory" if code == -signal.SIGKILL else ""))


def _run(pipe: Connection, folder: str, program: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.setpgrp()
    os.environ["TMPDIR"] = folder  # what is left behind when it is killed goes with it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        program(Turns(pipe), *arguments)
    except BaseException:
        pipe.send(traceback.format_exc())
        raise


def on_ranks(number: int, turns: Turns, program: Callable[..., None], *arguments: Any) -> None:
    """`program(turns, *arguments)` as so many ranks on this machine's cores; the first alone has turns."""
    os.environ |= {"WORLD_SIZE": f"{number}", "LOCAL_WORLD_SIZE": f"{number}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{_free_port()}"}
    for rank in range(1, number):
        multiprocessing.Process(target=_as_rank, args=(rank, None, program, arguments)).start()
    _as_rank(0, turns, program, arguments)


def no_rank() -> dict[str, str]:
    """The environment of a process that is no rank, even if this one is."""
    return {name: value for name, value in os.environ.items() if name not in OF_A_RANK}


def _as_rank(rank: int, turns: Turns | None, program: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
    program(turns, *arguments)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass(frozen=True)
class Times:
    """What one runner took, round by round."""

    seconds: list[float]
    reports: list[dict[str, float]]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def median_of(self, what: Callable[[float, Mapping[str, float]], float]) -> float:
        """Of a figure made of the seconds and the report of each round."""
        return statistics.median(map(what, self.seconds, self.reports))

    def over(self, other: Self) -> float:
        """The median of the ratios to `other` in the same round."""
        return statistics.median(mine / its for mine, its in zip(self.seconds, other.seconds, strict=True))


def relay(runners: Mapping[str, tuple], *, rounds: int, warm_up: int = 2) -> dict[str, Times]:
    """`rounds` steps of each, given as (program, *arguments), in turns that begin with another one each round.

    Every few rounds all are started again. Raises Failed where one raises or dies.
    """
    taken: dict[str, list[Step]] = {name: [] for name in runners}
    order = list(runners)
    for first in range(0, rounds, ROUNDS_OF_A_PROCESS):
        with _started(runners) as started:
            for number in range(-warm_up, min(ROUNDS_OF_A_PROCESS, rounds - first)):
                for name in order:
                    step = started[name].step()
                    if number >= 0:
                        taken[name].append(step)
                order.append(order.pop(0))
    return {name: _times(steps) for name, steps in taken.items()}


def race(
    runners: Mapping[str, tuple], *, has_arrived: Callable[[Sequence[Mapping[str, float]]], bool], most: int
) -> dict[str, Times]:
    """Steps of each in turns, until it has arrived by what its steps report.

    Raises Failed where one raises or dies, or takes more than `most` steps.
    """
    taken: dict[str, list[Step]] = {name: [] for name in runners}
    with _started(runners) as started:
        under_way = list(started)
        while under_way:
            for name in list(under_way):
                steps = taken[name]
                if len(steps) == most:
                    raise Failed(name, f"has not arrived after {most} steps")
                steps.append(started[name].step())
                if has_arrived([report for _, report in steps]):
                    under_way.remove(name)
    return {name: _times(steps) for name, steps in taken.items()}


@contextmanager
def _started(runners: Mapping[str, tuple]) -> Iterator[dict[str, Runner]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Runner(name, *what))) for name, what in runners.items()}


def _times(steps: Sequence[Step]) -> Times:
    return Times([seconds for seconds, _ in steps], [report for _, report in steps])
