"""A time limit for a call that works in any thread, for Math-Verify within a user's function.

Math-Verify's own limit is SIGALRM, which Python gives to the main thread alone: in another, `parse` and `verify` raise
ValueError unless they are called without any limit.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any


def limit_math_verify_in_threads() -> None:
    """Let Math-Verify's time limits work in threads; in the main thread they stay as they are."""
    from math_verify import errors, grader, parser, utils

    by_signal = utils.timeout

    def timeout(timeout_seconds: int | None = 10) -> Callable[[Callable], Callable]:
        if threading.current_thread() is threading.main_thread() or not timeout_seconds or timeout_seconds < 0:
            return by_signal(timeout_seconds)
        return lambda function: limited(function, timeout_seconds, errors.TimeoutException)

    parser.timeout = grader.timeout = timeout


def limited(function: Callable, seconds: float, fault: type[BaseException]) -> Callable:
    """`function`, which raises `fault` in its thread once it has run for `seconds`: between two steps of Python, as a
    signal's handler would.
    """

    def call(*arguments: Any, **settings: Any) -> Any:
        lock, thread, is_done = threading.Lock(), threading.get_ident(), False

        def interrupt() -> None:
            with lock:
                if not is_done:
                    _raise_in(thread, ctypes.py_object(fault))

        timer = threading.Timer(seconds, interrupt)
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments, **settings)
        finally:
            timer.cancel()
            with lock:
                is_done = True

    return call


def _raise_in(thread: int, fault: ctypes.py_object) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), fault)
