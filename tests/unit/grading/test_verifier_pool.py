import signal
import threading
import time

import psutil
import pytest

from grpo_cli.grading.verifier_pool import VerifierPool

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=1, timeout_s=TIMEOUT_S, memory_gib=1.0) as pool:
        pool.judge("math", "x+y", "y+x").result()
        yield pool


def test_a_hanging_answer_is_stopped_and_the_others_are_judged(pool):
    started = time.perf_counter()
    hanging = pool.judge("math", "x+1", "9^{9^{9^{9}}}")
    others = [pool.judge("math", f"{n}x+1", f"1+{n}x") for n in range(2, 12)]
    assert [other.result().verdict for other in others] == ["correct"] * 10
    assert hanging.result().verdict == "timeout"
    assert "1 s" in hanging.result().reason
    assert time.perf_counter() - started < TIMEOUT_S + 10


def test_memory_is_limited_and_the_next_answer_is_judged():
    with VerifierPool(num_workers=1, timeout_s=60, memory_gib=0.5) as pool:
        bomb = pool.judge("math", "x+1", "2^{10^{10}}").result()
        assert (bomb.verdict, bomb.reason) == ("timeout", "stopped for using too much memory")
        assert pool.judge("math", "x+1", "1+x").result().verdict == "correct"


def test_an_answer_that_needs_no_process_is_judged_immediately(pool):
    assert pool.judge("math", "42", "42").done()
    assert pool.judge("math", "42", "41").done()
    assert pool.judge("expression", "1 2 = 3", "1 + 2").done()


def test_an_equal_question_is_judged_once(pool):
    assert pool.judge("math", "a+b", "b+a") is pool.judge("math", "a+b", "b+a")


def test_a_timeout_is_not_cached(pool):
    question = ("math", "x+1", "8^{8^{8^{8}}}")
    first = pool.judge(*question)
    assert pool.judge(*question) is first  # still running: not judged twice
    assert first.result().verdict == "timeout"
    again = pool.judge(*question)
    assert again is not first
    assert again.result().verdict == "timeout"


def test_answers_are_judged_from_any_thread_while_the_caller_waits(pool):
    verdicts = []
    threads = [
        threading.Thread(
            target=lambda n=n: verdicts.append(pool.judge("math", f"x^{n}", f"xx^{n - 1}").result().verdict)
        )
        for n in range(3, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["correct"] * 6


def test_code_in_an_answer_is_never_run(pool, tmp_path):
    made = tmp_path / "made"
    for answer in (f"open('{made}','w')", f"__import__('os').system('touch {made}')", f"$(touch {made})"):
        assert pool.judge("math", "42", answer).result().verdict != "correct"
        assert pool.judge("expression", "42 = 42", answer).result().verdict == "unparsable"
    assert not made.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_all_processes_costs_no_verdict(number):
    # systemd and Slurm send a signal to all processes; the run then continues to the end of its step.
    with VerifierPool(num_workers=2, timeout_s=60, memory_gib=1.0) as pool:
        pool.judge("math", "x+y", "y+x").result()
        for process in psutil.Process().children(recursive=True):
            process.send_signal(number)
        judged = [pool.judge("math", f"{n}x+{number}", f"{number}+{n}x") for n in range(2, 12)]
        assert [one.result(60).verdict for one in judged] == ["correct"] * 10
