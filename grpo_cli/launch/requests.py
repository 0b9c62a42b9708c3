"""Requests to stop that a launcher receives."""

import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Self, TextIO

from grpo_cli import stop

SAME_REQUEST_S = 1.0  # `timeout` and scancel signal a process and its group: signals this close are one request


class Requests:
    """Records which of `signals` arrive, while it is open as a context manager."""

    def __init__(self, signals: tuple[signal.Signals, ...]) -> None:
        self._signals = stop.not_ignored(signals)
        self._received: list[tuple[signal.Signals, float]] = []

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._record) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def first(self) -> signal.Signals | None:
        return self._received[0][0] if self._received else None

    @property
    def is_repeated(self) -> bool:
        """Whether there was a second request: whoever sent it does not want to wait."""
        return any(time_s > self._received[0][1] + SAME_REQUEST_S for _, time_s in self._received)

    def wait(self, seconds: float) -> None:
        """Wait for the next request, for at most `seconds`."""
        num_before, end = len(self._received), time.monotonic() + seconds
        while len(self._received) == num_before and time.monotonic() < end:
            time.sleep(min(0.1, seconds))

    def _record(self, number: int, _: FrameType | None) -> None:
        self._received.append((signal.Signals(number), time.monotonic()))


def exit_status(number: int) -> int:
    """The shell's exit status of a run that this signal stopped. SIGUSR1 counts as SIGTERM: it means the same here."""
    return 128 + (signal.SIGTERM if number == signal.SIGUSR1 else number)


def print_if_open(text: str, file: TextIO | None = None, end: str = "\n") -> None:
    """Print to `file`, by default stderr; do nothing if that is a closed terminal or pipe."""
    with suppress(OSError):
        print(text, file=file or sys.stderr, end=end, flush=True)
