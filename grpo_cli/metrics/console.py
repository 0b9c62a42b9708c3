"""Shows a run's progress: a live display on a terminal, plain lines otherwise."""

import time
from collections import deque
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grpo_cli.metrics.metrics import SampleRow
from grpo_cli.printing import printable
from grpo_cli.progress import duration

# The metrics that are shown: label, metric, format.
TRAINING = (
    ("accuracy", "reward_term/accuracy/mean", ".3f"),
    ("reward", "reward/mean", ".3f"),
    ("length", "length/mean", ".1f"),
    ("waits", "reflection/wait_rate", ".2f"),
    ("kl", "policy/kl_ref", ".4f"),
    ("teacher kl", "policy/kl_teacher", ".4f"),
    ("tokens/s", "perf/tokens_per_s", ",.0f"),
    ("mfu", "perf/mfu", ".1%"),
)
HELDOUT = (
    ("held-out", "eval/heldout/avg", ".3f"),
    ("greedy", "eval/heldout/greedy", ".3f"),
)
PLAIN_EVERY_S = 5.0  # between two plain lines at least
SAMPLE_LINES = 3


class Display:
    """Shows the latest metrics on `console` until closed; a live display if the console is a terminal."""

    def __init__(self, console: Console, *, title: str, steps: int, start_step: int = 0) -> None:
        self._console = console
        self._title = title
        self._steps = steps
        self._step = start_step
        self._metrics: dict[str, float] = {}  # the latest value of each metric
        self._sample: SampleRow | None = None
        self._finished_at: deque[tuple[int, float]] = deque(maxlen=20)  # step, seconds
        self._printed_at = float("-inf")
        # Do not redirect the standard streams: other libraries print to them.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=2,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        if console.is_interactive:
            self._live.start()

    def update(self, step: int, metrics: Mapping[str, float], sample: SampleRow | None = None) -> None:
        self._step = step
        self._metrics |= metrics
        self._sample = sample or self._sample
        now = time.monotonic()
        self._finished_at.append((step, now))
        if self._live.is_started:
            return
        evaluated = any(name.startswith("eval/") for name in metrics)
        if evaluated or step == self._steps or now - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = now
            values = _formatted(TRAINING + HELDOUT, metrics)
            words = [f"step {step}/{self._steps}", *(f"{label} {value}" for label, value in values)]
            if left := self._time_left():
                words.append(f"{left} left")
            self._console.print("  ".join(words), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _time_left(self) -> str:
        if len(self._finished_at) < 2 or self._step >= self._steps:
            return ""
        (first_step, first), (last_step, last) = self._finished_at[0], self._finished_at[-1]
        return duration((self._steps - last_step) * (last - first) / (last_step - first_step))

    def _render(self) -> Panel:
        progress = Table.grid(padding=(0, 2))
        progress.add_row(
            f"step {self._step}/{self._steps}",
            ProgressBar(total=self._steps, completed=self._step, width=30),
            f"{left} left" if (left := self._time_left()) else "",
        )
        values = _formatted(TRAINING + HELDOUT, self._metrics)
        line = Text("   ").join(Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in values)
        parts: list[RenderableType] = [progress, line]
        if self._sample:
            sample = self._sample
            room = SAMPLE_LINES * (self._console.width - 4)
            score = f"reward {sample.reward:.2f}  "
            text = clip(f"{sample.prompt[-room // 3 :]} {sample.response}", room - len(score))
            parts.append(Text.assemble((score, "dim"), text))
        return Panel(Group(*parts), title=Text(printable(self._title)), title_align="left", border_style="dim")


def clip(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters: its middle is cut out, control characters become "?"."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    if len(line) <= width:
        return line
    head = (width - 3) // 2
    return f"{line[:head]} … {line[len(line) - (width - 3 - head) :]}"


def _formatted(columns: tuple[tuple[str, str, str], ...], metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(label, format(metrics[name], spec)) for label, name, spec in columns if name in metrics]
