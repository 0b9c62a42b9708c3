"""Time limits that work in any thread, so that users' reward functions can call Math-Verify.

Math-Verify's own limit uses SIGALRM, which works only in Python's main thread: in other threads `parse` and `verify`
raise ValueError unless they are called without a limit.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any


def limit_math_verify_in_threads() -> None:
    """Make Math-Verify's time limits work in all threads. Nothing changes in the main thread."""
    from math_verify import errors, grader, parser, utils

    signal_timeout = utils.timeout

    def timeout(timeout_seconds: int | None = 10) -> Callable[[Callable], Callable]:
        if threading.current_thread() is threading.main_thread() or not timeout_seconds or timeout_seconds < 0:
            return signal_timeout(timeout_seconds)
        return lambda function: with_time_limit(function, timeout_seconds, errors.TimeoutException)

    parser.timeout = grader.timeout = timeout


def with_time_limit(function: Callable, seconds: float, error: type[BaseException]) -> Callable:
    """Returns `function` with a time limit: after `seconds`, `error` is raised in its thread.

    Like a signal handler, this interrupts only between two Python bytecodes.
    """

    def call(*arguments: Any, **settings: Any) -> Any:
        lock, thread, is_done = threading.Lock(), threading.get_ident(), False

        def interrupt() -> None:
            with lock:
                if not is_done:
                    _raise_in(thread, ctypes.py_object(error))

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


def _raise_in(thread: int, error: ctypes.py_object) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
