"""Processes that judge answers by algebra. Each can be killed without harm to the others.

Math-Verify's own time limit is an alarm signal, which sympy can ignore and which only works in the main thread.
Here the kernel counts each process's CPU time and kills it at the limit. A limit on wall-clock time would make verdicts
depend on the load of the machine.
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

_WALL_TIME_FACTOR = 30  # wall-clock limit = this x the CPU limit, for a process that is suspended or gets no CPU
_CONTENTION_FACTOR = 1.5  # a process that took longer than this x the CPU limit had to share its core
_OUT_OF_MEMORY = 77  # exit code
_MAX_FAILED_RETRIES = 2  # while other answers wait; after that, retries would only delay the others


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection


@dataclass(frozen=True, slots=True)
class Stopped:
    """An unfinished judgement: why it was stopped, and whether a retry could succeed."""

    reason: str
    try_again: bool
    used_all_cpu_time: bool = False


class KillableProcesses:
    """`num_workers` processes, each with `cpu_s` seconds of CPU time per answer and `memory_gib` of address space."""

    def __init__(self, num_workers: int, cpu_s: float, memory_gib: float) -> None:
        self._cpu_s = cpu_s
        self._num_bytes = int(memory_gib * 2**30)
        # forkserver, because a fork of this process would inherit locks held by threads of vLLM and torch.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["grpo_cli.grading.warm_up"])
        for helper in (resource_tracker, forkserver):  # one `with` for each: starting the first unblocks signals
            with children_outlive_requests():
                helper.ensure_running()
        self._tasks: queue.SimpleQueue[tuple[str, str, Future[Judgement]] | None] = queue.SimpleQueue()
        self._turns = threading.Condition()
        self._num_running = 0
        self._is_alone = False
        self._num_failed_retries = 0  # since the queue was last empty
        self._workers: dict[int, _Worker] = {}  # by thread number
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, args=(n,), daemon=True) for n in range(num_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, gold: str, answer: str) -> Future[Judgement]:
        """Returns a future of the verdict on an answer."""
        judgement: Future[Judgement] = Future()
        self._tasks.put((gold, answer, judgement))
        return judgement

    def close(self) -> None:
        """Stop the processes and cancel unfinished judgements."""
        with self._turns:
            self._closed = True
            for worker in self._workers.values():
                worker.process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        """The main function of a thread, which has one process and starts another if that process dies."""
        self._start(number)  # now, so that the first answer does not wait for it
        while (task := self._tasks.get()) is not None:
            gold, answer, judgement = task
            try:
                with self._turn(alone=False):
                    reply = self._ask(number, gold, answer)
                if isinstance(reply, Stopped) and reply.try_again and not self._closed:
                    reply = self._ask_again(number, gold, answer, reply)
            except BaseException as error:
                result: Judgement | BaseException = error
            else:
                result = Judgement(Verdict.timeout, reply.reason) if isinstance(reply, Stopped) else reply
            with suppress(InvalidStateError):  # cancelled in the meantime
                if self._closed:
                    judgement.cancel()
                elif isinstance(result, BaseException):
                    judgement.set_exception(result)
                else:
                    judgement.set_result(result)
            if self._tasks.empty():
                self._num_failed_retries = 0
        if worker := self._workers.pop(number, None):
            _kill(worker)

    def _ask_again(self, number: int, gold: str, answer: str, before: Stopped) -> Judgement | Stopped:
        """Returns the reply to a second try, during which all other processes of this pool are idle."""
        with self._turn(alone=True):
            if self._num_failed_retries >= _MAX_FAILED_RETRIES and before.used_all_cpu_time:
                return before
            reply = self._ask(number, gold, answer)
            self._num_failed_retries += isinstance(reply, Stopped)
            return reply

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        """Wait until no process has asked to run alone. If `alone`, wait until no process is running."""
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
        connection, child_connection = self._context.Pipe()
        process = self._context.Process(
            target=_worker_main, args=(child_connection, self._num_bytes, self._cpu_s), daemon=True
        )
        worker = _Worker(process, connection)
        with self._turns:
            if self._closed:
                return None
            process.start()
            self._workers[number] = worker
        child_connection.close()
        return worker

    def _ask(self, number: int, gold: str, answer: str) -> Judgement | Stopped:
        """Returns the reply of the thread's process. Raises RuntimeError if the process raised an exception."""
        worker = self._workers.get(number) or self._start(number)
        if worker is None:
            return Stopped("closed", try_again=False)
        started = time.monotonic()
        reply = None
        with suppress(EOFError, OSError):
            worker.connection.send((gold, answer))
            if worker.connection.poll(60 + _WALL_TIME_FACTOR * self._cpu_s):
                reply = worker.connection.recv()
        if isinstance(reply, Judgement):
            return reply
        if isinstance(reply, str):
            raise RuntimeError(f"A grading process failed with:\n{reply}")
        with self._turns:
            self._workers.pop(number, None)
        _kill(worker)
        return why_stopped(worker.process.exitcode, time.monotonic() - started, self._cpu_s)


def why_stopped(exit_code: int | None, elapsed_s: float, cpu_s: float) -> Stopped:
    """Returns why a process died and whether its answer is worth a retry.

    An answer that used up its CPU time is not retried, unless its process shared its core: CPU time on a shared core
    does less work. Every other death may be caused by earlier answers or by other processes, so the answer is retried.
    Raises RuntimeError if the process itself failed, which is a bug in r1zero.
    """
    if exit_code == -signal.SIGPROF:
        shared_core = elapsed_s > _CONTENTION_FACTOR * cpu_s
        return Stopped(f"stopped after {cpu_s:g} s", try_again=shared_core, used_all_cpu_time=True)
    if exit_code is not None and exit_code > 0 and exit_code != _OUT_OF_MEMORY:
        raise RuntimeError(f"A grading process exited with code {exit_code}. Look for its error message on stderr.")
    return Stopped("stopped for using too much memory", try_again=True)


def _kill(worker: _Worker) -> None:
    """Kill a process. One that has already exited keeps its exit code."""
    worker.connection.close()
    worker.process.join(0.1)  # a process that is out of memory exits by itself
    worker.process.kill()
    worker.process.join()


def _worker_main(connection: Connection, num_bytes: int, cpu_s: float) -> None:
    """The main function of a process: replies to each question with a judgement, or with a traceback as a string."""
    from grpo_cli.grading.symbolic import judge_fully

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # SIGPROF has no handler and so kills the process
        reply: Judgement | str
        try:
            reply = judge_fully(*question)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception:
            reply = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(reply)
