"""The requests to stop that reach a launcher."""

import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Self, TextIO

from grpo_cli import stop

SAME_S = 1.0  # `timeout` and scancel send theirs to a process and to its group: what comes so close is one request


class Requests:
    """Which of `signals` have come, while it is open as a context manager."""

    def __init__(self, signals: tuple[signal.Signals, ...]) -> None:
        self._signals = stop.heeded(signals)
        self._came: list[tuple[signal.Signals, float]] = []

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def first(self) -> signal.Signals | None:
        return self._came[0][0] if self._came else None

    @property
    def is_repeated(self) -> bool:
        """Whether another came after the first: whoever sent it does not want to wait."""
        return any(time_s > self._came[0][1] + SAME_S for _, time_s in self._came)

    def wait(self, seconds: float) -> None:
        """Until one comes, for at most so long."""
        num_before, end = len(self._came), time.monotonic() + seconds
        while len(self._came) == num_before and time.monotonic() < end:
            time.sleep(min(0.1, seconds))

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.append((signal.Signals(number), time.monotonic()))


def exit_status(number: int) -> int:
    """Of a run that stopped for this signal, as a shell gives it; that of SIGTERM for SIGUSR1, which means the same."""
    return 128 + (signal.SIGTERM if number == signal.SIGUSR1 else number)


def tell(text: str, file: TextIO | None = None, end: str = "\n") -> None:
    """Print to `file`, stderr unless given, if anybody is left there to read it."""
    with suppress(OSError):
        print(text, file=file or sys.stderr, end=end, flush=True)
