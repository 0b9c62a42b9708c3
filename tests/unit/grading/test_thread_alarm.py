"""Time limits in threads other than the main thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpo_cli.grading.thread_alarm import with_time_limit


class TooLongError(BaseException):
    pass


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_function_that_ends_in_time_returns_its_value(thread):
    assert thread.submit(with_time_limit(lambda x, y: x + y, 60, TooLongError), 1, y=2).result(timeout=60) == 3


def test_a_function_that_does_not_end_raises_the_error_past_handlers_of_exceptions(thread):
    has_ended = threading.Event()

    def spin():
        try:
            while not has_ended.is_set():
                pass
        except Exception:
            return "swallowed"

    try:
        with pytest.raises(TooLongError):
            thread.submit(with_time_limit(spin, 0.1, TooLongError)).result(timeout=60)
    finally:
        has_ended.set()


def test_a_limit_ends_with_its_call(thread):
    started, may_end = threading.Event(), threading.Event()

    def after_a_limited_call():
        with_time_limit(lambda: None, 0.1, TooLongError)()
        started.set()
        while not may_end.is_set():
            pass
        return "undisturbed"

    later = thread.submit(after_a_limited_call)
    assert started.wait(60)
    threading.Event().wait(0.5)  # longer than the time limit of the finished call
    may_end.set()
    assert later.result(timeout=60) == "undisturbed"
