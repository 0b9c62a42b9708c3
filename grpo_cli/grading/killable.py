"""Processes that judge answers by algebra, each of which can be killed without harm to the rest.

Math-Verify's own time limit is an alarm signal, which sympy can ignore and which does nothing off the main thread.
Here the kernel counts a process's CPU time and ends it at the limit. The wall clock would do on an idle machine, but
elsewhere it makes verdicts depend on what else is running.
"""

import multiprocessing
import os
import queue
import resource
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from grpo_cli.grading.math_grader import Judgement
from grpo_cli.stop import children_outlive_requests
from grpo_cli.types import Verdict

_PATIENCE = 30  # times the CPU limit, by the wall clock: for a process that is stopped or starved
_CONTENDED = 1.5  # times the CPU limit: what took longer had to share its core
_OUT_OF_MEMORY = 77  # the exit code of a process
_MAX_IN_VAIN = 2  # while others wait: then the answers hang, and more tries would only take time from the rest


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection


@dataclass(frozen=True, slots=True)
class Stopped:
    """A judgement that was not finished: why, and whether another try could end otherwise."""

    reason: str
    try_again: bool
    has_used_up: bool = False  # its CPU time


class KillableProcesses:
    """`num_workers` processes, each with `cpu_s` of CPU time for an answer and `memory_gib` of address space."""

    def __init__(self, num_workers: int, cpu_s: float, memory_gib: float) -> None:
        self._cpu_s = cpu_s
        self._num_bytes = int(memory_gib * 2**30)
        # forkserver: a fork of this process would inherit locks that vLLM's and torch's threads hold.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["grpo_cli.grading.warm_up"])
        for helper in (resource_tracker, forkserver):  # each in its own turn: the first unblocks signals as it starts
            with children_outlive_requests():
                helper.ensure_running()
        self._tasks: queue.SimpleQueue[tuple[str, str, Future[Judgement]] | None] = queue.SimpleQueue()
        self._turns = threading.Condition()
        self._num_running = 0
        self._is_alone = False
        self._num_in_vain = 0  # second tries that were stopped, too, since last nobody waited
        self._workers: dict[int, _Worker] = {}  # by the number of their thread
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, args=(n,), daemon=True) for n in range(num_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, gold: str, answer: str) -> Future[Judgement]:
        """The verdict on an answer, without waiting for it."""
        judgement: Future[Judgement] = Future()
        self._tasks.put((gold, answer, judgement))
        return judgement

    def close(self) -> None:
        """Stop the processes. Judgements still under way are cancelled."""
        with self._turns:
            self._closed = True
            for worker in self._workers.values():
                worker.process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        """One thread's life: it has one process, and starts another where that is lost."""
        self._start(number)  # now, so that the first answer need not wait for it
        while (task := self._tasks.get()) is not None:
            gold, answer, judgement = task
            try:
                with self._turn(alone=False):
                    reply = self._ask(number, gold, answer)
                if isinstance(reply, Stopped) and reply.try_again and not self._closed:
                    reply = self._ask_again(number, gold, answer, reply)
                if isinstance(reply, Stopped):
                    reply = Judgement(Verdict.timeout, reply.reason)
            except BaseException as error:
                reply = error
            with suppress(InvalidStateError):  # cancelled meanwhile
                if self._closed:
                    judgement.cancel()
                elif isinstance(reply, BaseException):
                    judgement.set_exception(reply)
                else:
                    judgement.set_result(reply)
            if self._tasks.empty():
                self._num_in_vain = 0
        if worker := self._workers.pop(number, None):
            _end(worker)

    def _ask_again(self, number: int, gold: str, answer: str, before: Stopped) -> Judgement | Stopped:
        """The reply to a second try, during which no other process of these runs."""
        with self._turn(alone=True):
            if self._num_in_vain >= _MAX_IN_VAIN and before.has_used_up:
                return before
            reply = self._ask(number, gold, answer)
            self._num_in_vain += isinstance(reply, Stopped)
            return reply

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        """Wait until nobody runs alone and, to run alone, until nobody runs."""
        with self._turns:
            self._turns.wait_for(lambda: not self._is_alone)
            self._is_alone = alone
            if alone:
                self._turns.wait_for(lambda: not self._num_running)
            self._num_running += 1
        try:
            yield
        finally:
            with self._turns:
                self._num_running -= 1
                self._is_alone = self._is_alone and not alone
                self._turns.notify_all()

    def _start(self, number: int) -> _Worker | None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._num_bytes, self._cpu_s), daemon=True)
        worker = _Worker(process, ours)
        with self._turns:
            if self._closed:
                return None
            process.start()
            self._workers[number] = worker
        theirs.close()
        return worker

    def _ask(self, number: int, gold: str, answer: str) -> Judgement | Stopped:
        """What the thread's process replies. Raises what it raised."""
        worker = self._workers.get(number) or self._start(number)
        if worker is None:
            return Stopped("closed", try_again=False)
        started = time.monotonic()
        reply = None
        with suppress(EOFError, OSError):
            worker.connection.send((gold, answer))
            if worker.connection.poll(60 + _PATIENCE * self._cpu_s):
                reply = worker.connection.recv()
        if isinstance(reply, Judgement):
            return reply
        if isinstance(reply, str):
            raise RuntimeError(f"a verifying process failed:\n{reply}")
        with self._turns:
            self._workers.pop(number, None)
        _end(worker)  # with whatever has filled its memory
        return why_stopped(worker.process.exitcode, time.monotonic() - started, self._cpu_s)


def why_stopped(exit_code: int | None, elapsed_s: float, cpu_s: float) -> Stopped:
    """What the end of a process says of the answer that it was working on.

    One that has used up its CPU time is final, unless it shared its core, which makes CPU time itself go less far. All
    else may be owed to what the process did before, or to others: it is worth another try. Raises RuntimeError where
    the process failed by itself, which is a fault of ours.
    """
    if exit_code == -signal.SIGPROF:
        return Stopped(f"stopped after {cpu_s:g} s", try_again=elapsed_s > _CONTENDED * cpu_s, has_used_up=True)
    if exit_code is not None and exit_code > 0 and exit_code != _OUT_OF_MEMORY:
        raise RuntimeError(f"a verifying process ended with exit code {exit_code}; what it wrote to stderr says why")
    return Stopped("stopped for using too much memory", try_again=True)


def _end(worker: _Worker) -> None:
    """End a process, which keeps the exit code that it has if it is over."""
    worker.connection.close()
    worker.process.join(0.1)  # out of memory: it ends by itself
    worker.process.kill()
    worker.process.join()


def _work(connection: Connection, num_bytes: int, cpu_s: float) -> None:
    """A process's life: it replies to each question with a judgement, or with a fault in words."""
    from grpo_cli.grading.symbolic import judge_fully

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # SIGPROF, which nobody handles, ends the process
        try:
            reply = judge_fully(*question)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception:
            reply = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(reply)
