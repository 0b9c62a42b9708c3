"""A request to stop: a run that gets one saves at the end of its step and leaves."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

# Ctrl-C; kill, systemd and Slurm; a terminal that closes; the launcher to its ranks.
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_requested = Event()


def heeded(signals: tuple[signal.Signals, ...] = REQUESTS) -> tuple[signal.Signals, ...]:
    """Those that this process was not started to ignore, as `nohup` does with SIGHUP."""
    return tuple(number for number in signals if signal.getsignal(number) != signal.SIG_IGN)


def end_at_once() -> None:
    """Let a request end this process: the kernel does, whatever the process is busy with."""
    for number in heeded():
        signal.signal(number, signal.SIG_DFL)


def listen(*signals: signal.Signals) -> None:
    """From now on take these signals, or all that are heeded, as requests to stop at the end of the step."""
    for number in signals or heeded():
        signal.signal(number, lambda *_: _requested.set())


def is_requested() -> bool:
    """Whether this process has been asked to."""
    return _requested.is_set()


@contextmanager
def children_outlive_requests() -> Iterator[None]:
    """A process that this thread starts meanwhile is not reached by requests: the step that is to be saved needs it.

    systemd and Slurm send theirs to all processes of a run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)  # a child inherits it, and so do its own
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
