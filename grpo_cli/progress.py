"""Shows that a command is at work: a line or a bar that moves on a terminal, otherwise a line now and then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from grpo_cli.printing import printable

FIRST_LINE_S = 1.5  # without a terminal; the times between later lines double, so that a log stays short
LONGEST_GAP_S = 10.0


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3920)
    '1:05:20'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Work:
    """How far a piece of work is."""

    def __init__(self, text: str, total: int | None) -> None:
        self.text = text
        self.total = total
        self.num_done = 0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def left(self) -> str:
        """The time left, or nothing if it is unknown."""
        if not self.total or not self.num_done:
            return ""
        return f"{duration((self.total - self.num_done) * self.seconds / self.num_done)} left"

    def line(self) -> str:
        if not self.total:
            return f"{self.text} ... {self.seconds:.0f} s"
        return f"{self.text}: {self.num_done} of {self.total}" + f", {self.left}" * bool(self.left)


@contextmanager
def progress(console: Console, text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show `text` while the block is at work. Yields a function to call whenever one of `total` parts is done."""
    work = Work(text, total)

    def count() -> None:
        work.num_done += 1

    shown: Callable[[Console, Work], AbstractContextManager] = _bar if console.is_terminal else _lines
    with nullcontext() if console.quiet else shown(console, work):
        yield count


@contextmanager
def stage(console: Console, text: str) -> Iterator[None]:
    """As `progress`; then a line says how long it took."""
    work = Work(text, None)
    with progress(console, text):
        yield
    _print(console, f"{text}: {work.seconds:.1f} s")


@contextmanager
def _bar(console: Console, work: Work) -> Iterator[None]:
    spinner = Spinner("dots")

    def render() -> Table:
        row = Table.grid(padding=(0, 1))
        bar = [ProgressBar(work.total, work.num_done, width=30)] if work.total else []
        row.add_row(spinner, *bar, Text(printable(work.line())))
        return row

    with Live(
        console=console,
        get_renderable=render,
        refresh_per_second=5,
        transient=True,
        redirect_stdout=False,  # other libraries print to the standard streams
        redirect_stderr=False,
    ):
        yield


@contextmanager
def _lines(console: Console, work: Work) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        gap = FIRST_LINE_S
        while not ended.wait(gap):
            _print(console, work.line())
            gap = min(2 * gap, LONGEST_GAP_S)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
