"""A request to stop: a run that gets one saves at the end of its step and leaves."""

import signal
from threading import Event

_requested = Event()


def listen(*signals: signal.Signals) -> None:
    """From now on take these signals as requests to stop, which would end the process otherwise."""
    for number in signals:
        signal.signal(number, lambda *_: _requested.set())


def is_requested() -> bool:
    """Whether this process has been asked to."""
    return _requested.is_set()
