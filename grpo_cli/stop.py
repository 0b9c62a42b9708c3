"""Requests to stop: a run that gets one finishes its step, saves and exits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

# Sent by: Ctrl-C; kill, systemd and Slurm; a terminal that is closed; the launcher to its ranks.
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_requested = Event()


def not_ignored(signals: tuple[signal.Signals, ...] = REQUESTS) -> tuple[signal.Signals, ...]:
    """The `signals` without those that this process inherited as ignored, as `nohup` does with SIGHUP."""
    return tuple(number for number in signals if signal.getsignal(number) != signal.SIG_IGN)


def exit_on_request() -> None:
    """From now on a request ends this process immediately: the kernel does it, whatever the process is doing."""
    for number in not_ignored():
        signal.signal(number, signal.SIG_DFL)


def listen(*signals: signal.Signals) -> None:
    """From now on these signals (by default all requests) ask this process to stop at the end of its step."""
    for number in signals or not_ignored():
        signal.signal(number, lambda *_: _requested.set())


def is_requested() -> bool:
    """Whether this process has been asked to stop."""
    return _requested.is_set()


@contextmanager
def children_outlive_requests() -> Iterator[None]:
    """Block requests in processes that this thread starts in the `with` block: the last step still needs them.

    systemd and Slurm send their requests to every process of a run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)  # children and their children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
