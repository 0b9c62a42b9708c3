"""Judgements are stopped by their own CPU time and memory, not by wall-clock time. No test here asserts on timings."""

import multiprocessing
import resource
import signal
import time

import psutil
import pytest

from grpo_cli.grading import symbolic
from grpo_cli.grading.killable import KillableProcesses, _worker_main, why_stopped
from grpo_cli.grading.math_grader import Judgement
from grpo_cli.types import Verdict

CPU_S = 0.5


def processes() -> list[psutil.Process]:
    """The grading processes: children of the fork server, which is a child of this process."""
    return [worker for server in psutil.Process().children() for worker in server.children()]


@pytest.fixture
def two_processes():
    """A pool with two grading processes, both started and idle."""
    before = set(processes())
    pool = KillableProcesses(num_workers=2, cpu_s=CPU_S, memory_gib=1.0)
    while len(own_processes := set(processes()) - before) < 2:
        time.sleep(0.05)
    for n in range(4):
        pool.submit(f"{n}a+b", f"b+{n}a").result()
    yield pool, list(own_processes)
    pool.close()


def waiting(gold, answer):
    time.sleep(3 * CPU_S)  # longer than a wall-clock limit would allow
    return Judgement(Verdict.correct, gold)


def busy(gold, answer):
    while True:
        pass


def judge_with(judge_fully, connection):
    symbolic.judge_fully = judge_fully
    _worker_main(connection, resource.RLIM_INFINITY, CPU_S)


@pytest.fixture
def start_judging():
    """A function that starts a process which judges with the given function. Returns the process and a connection."""
    context = multiprocessing.get_context("spawn")
    started = []

    def start(judge_fully):
        connection, child_connection = context.Pipe()
        started.append(context.Process(target=judge_with, args=(judge_fully, child_connection), daemon=True))
        started[-1].start()
        child_connection.close()
        connection.send(("gold", "answer"))
        return started[-1], connection

    yield start
    for process in started:
        process.kill()


def test_time_without_the_cpu_does_not_count(start_judging):
    _, connection = start_judging(waiting)
    assert connection.recv() == Judgement(Verdict.correct, "gold")


def test_cpu_time_counts(start_judging):
    process, connection = start_judging(busy)
    with pytest.raises(EOFError):
        connection.recv()
    process.join()
    assert process.exitcode == -signal.SIGPROF


def test_a_judgement_whose_process_dies_is_retried_when_no_other_process_runs(two_processes):
    pool, (first, second) = two_processes
    first.suspend()
    second.suspend()
    right = [pool.submit(f"{n}x+y", f"y+{n}x") for n in range(2, 4)]  # one for each process
    while not pool._tasks.empty():
        time.sleep(0.01)
    first.kill()
    time.sleep(3 * CPU_S)
    assert not any(each.done() for each in right)  # the judgement whose process died waits for the other to end
    second.resume()
    assert [each.result().verdict for each in right] == ["correct"] * 2


def test_an_answer_that_uses_up_its_time_is_a_timeout_and_the_next_is_judged(two_processes):
    pool, _ = two_processes
    hanging = [pool.submit("x+1", "9^{9^{9^{9}}}") for _ in range(2)]
    assert pool.submit("x+1", "1+x").result().verdict == "correct"
    assert {(each.result().verdict, each.result().reason) for each in hanging} == {("timeout", "stopped after 0.5 s")}


def test_closing_cancels_unfinished_judgements():
    pool = KillableProcesses(num_workers=1, cpu_s=60, memory_gib=1.0)
    pool.submit("a+b", "b+a").result()
    running, waiting = (pool.submit("x+1", f"9^{{9^{{9^{{{n}}}}}}}") for n in (8, 9))
    while not pool._num_running:
        time.sleep(0.01)
    pool.close()
    assert running.cancelled()
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("exit_code", "elapsed_s", "again"),
    [
        (-signal.SIGPROF, 2.1, False),  # it did not share its core: a retry would end in the same way
        (-signal.SIGPROF, 9.0, True),  # it shared its core
        (-signal.SIGKILL, 0.1, True),
        (-signal.SIGSEGV, 0.1, True),
        (None, 0.1, True),
        (0, 0.1, True),
    ],
)
def test_only_failures_that_load_or_earlier_answers_may_have_caused_are_retried(exit_code, elapsed_s, again):
    assert why_stopped(exit_code, elapsed_s, cpu_s=2.0).try_again == again


def test_a_process_that_fails_by_itself_is_an_error_and_not_a_timeout():
    with pytest.raises(RuntimeError, match="exited with code 1"):
        why_stopped(1, 0.1, cpu_s=2.0)
