"""What stops a judgement: its own CPU time and memory, never the clock on the wall. No test here asserts on timings."""

import multiprocessing
import resource
import signal
import time

import psutil
import pytest

from grpo_cli.grading.killable import KillableProcesses, _work, why_stopped
from grpo_cli.grading.math_grader import Judgement
from grpo_cli.types import Verdict

CPU_S = 0.5


def processes() -> list[psutil.Process]:
    """The processes that judge: children of the fork server, which is a child of this process."""
    return [worker for server in psutil.Process().children() for worker in server.children()]


@pytest.fixture
def two():
    """Two processes that judge, both awake and idle."""
    before = set(processes())
    pool = KillableProcesses(num_workers=2, cpu_s=CPU_S, memory_gib=1.0)
    while len(ours := set(processes()) - before) < 2:
        time.sleep(0.05)
    for n in range(4):
        pool.submit(f"{n}a+b", f"b+{n}a").result()
    yield pool, list(ours)
    pool.close()


@pytest.fixture
def judging(monkeypatch):
    """Starts a process that judges by a function of the test's own; returns it and a connection to it."""
    context = multiprocessing.get_context("fork")  # which takes the function along
    started = []

    def start(judge_fully):
        monkeypatch.setattr("grpo_cli.grading.symbolic.judge_fully", judge_fully)
        ours, theirs = context.Pipe()
        started.append(context.Process(target=_work, args=(theirs, resource.RLIM_INFINITY, CPU_S), daemon=True))
        started[-1].start()
        theirs.close()
        ours.send(("gold", "answer"))
        return started[-1], ours

    yield start
    for process in started:
        process.kill()


def test_time_that_a_process_does_not_have_the_core_does_not_count(judging):
    def waiting(gold, answer):
        time.sleep(3 * CPU_S)  # a limit by the wall clock would be over
        return Judgement(Verdict.correct, gold)

    _, connection = judging(waiting)
    assert connection.recv() == Judgement(Verdict.correct, "gold")


def test_time_that_a_process_has_the_core_counts(judging):
    def busy(gold, answer):
        while True:
            pass

    process, connection = judging(busy)
    with pytest.raises(EOFError):
        connection.recv()
    process.join()
    assert process.exitcode == -signal.SIGPROF


def test_a_judgement_whose_process_is_lost_is_tried_again_when_no_other_runs(two):
    pool, (first, second) = two
    first.suspend()
    second.suspend()
    right = [pool.submit(f"{n}x+y", f"y+{n}x") for n in range(2, 4)]  # one for each
    while not pool._tasks.empty():
        time.sleep(0.01)
    first.kill()
    time.sleep(3 * CPU_S)
    assert not any(each.done() for each in right)  # the one that lost its process waits for the other
    second.resume()
    assert [each.result().verdict for each in right] == ["correct"] * 2


def test_what_uses_up_its_time_is_a_timeout_and_the_next_is_judged(two):
    pool, _ = two
    hanging = [pool.submit("x+1", "9^{9^{9^{9}}}") for _ in range(2)]
    assert pool.submit("x+1", "1+x").result().verdict == "correct"
    assert {(each.result().verdict, each.result().reason) for each in hanging} == {("timeout", "stopped after 0.5 s")}


def test_closing_cancels_what_is_under_way():
    pool = KillableProcesses(num_workers=1, cpu_s=60, memory_gib=1.0)
    pool.submit("a+b", "b+a").result()
    under_way, waiting = (pool.submit("x+1", f"9^{{9^{{9^{{{n}}}}}}}") for n in (8, 9))
    while not pool._num_running:
        time.sleep(0.01)
    pool.close()
    assert under_way.cancelled()
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("exit_code", "elapsed_s", "again"),
    [
        (-signal.SIGPROF, 2.1, False),  # it had its core to itself: another try would end alike
        (-signal.SIGPROF, 9.0, True),  # it shared it
        (-signal.SIGKILL, 0.1, True),
        (-signal.SIGSEGV, 0.1, True),
        (None, 0.1, True),
        (0, 0.1, True),
    ],
)
def test_only_what_load_or_an_earlier_answer_may_have_caused_is_tried_again(exit_code, elapsed_s, again):
    assert why_stopped(exit_code, elapsed_s, cpu_s=2.0).try_again == again


def test_a_process_that_fails_by_itself_is_no_timeout():
    with pytest.raises(RuntimeError, match="exit code 1"):
        why_stopped(1, 0.1, cpu_s=2.0)
