from io import StringIO

import pytest
from rich.console import Console

from grpo_cli.metrics import console as console_module
from grpo_cli.metrics.console import Display, clip
from grpo_cli.metrics.metrics import SampleRow

SAMPLE = SampleRow(3, "3 1 1 1 :", "[b]no[/b] wait yes", "0", "", "correct", 1.1, 0.8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that the display reads, in seconds; the test sets it."""
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


def display(*, terminal: bool, steps: int = 100) -> tuple[Display, StringIO]:
    shown = StringIO()
    console = Console(file=shown, force_terminal=terminal, force_interactive=terminal, width=120, color_system=None)
    return Display(console, title="tiny", steps=steps), shown


def test_without_a_terminal_a_fast_run_prints_some_steps_and_the_last(clock):
    watched, shown = display(terminal=False)
    for step in range(1, 101):
        clock[0] = step
        watched.update(step, {"reward/mean": 0.5})
    printed = [line.split()[1] for line in shown.getvalue().splitlines()]
    assert printed[:3] == ["1/100", "6/100", "11/100"]
    assert printed[-1] == "100/100"


def test_without_a_terminal_a_slow_run_prints_every_step(clock):
    watched, shown = display(terminal=False)
    for step in range(1, 5):
        clock[0] = 60.0 * step
        watched.update(step, {})
    assert len(shown.getvalue().splitlines()) == 4


def test_an_evaluation_is_always_printed(clock):
    watched, shown = display(terminal=False)
    watched.update(1, {})
    watched.update(2, {"eval/heldout/avg": 0.25, "eval/heldout/greedy": 0.5})
    assert shown.getvalue().splitlines()[-1].startswith("step 2/100  held-out 0.250  greedy 0.500")


def test_a_plain_line_has_the_metrics_and_the_time_left(clock):
    watched, shown = display(terminal=False)
    watched.update(1, {})
    clock[0] = 40.0  # 40 s per step, 98 steps left: 3920 s
    watched.update(2, {"reward_term/accuracy/mean": 0.5, "length/mean": 18.25, "perf/tokens_per_s": 1234.5, "other": 1})
    assert shown.getvalue().splitlines()[-1] == (
        "step 2/100  accuracy 0.500  length 18.2  tokens/s 1,234  1:05:20 left"
    )


def test_a_terminal_shows_the_latest_metrics_the_last_evaluation_the_time_left_and_a_sample(clock):
    watched, shown = display(terminal=True)
    watched.update(2, {"eval/heldout/avg": 0.25})
    clock[0] = 40.0  # s per step; 97 steps left
    metrics = {"reward_term/accuracy/mean": 0.75, "reward/mean": 0.8, "length/mean": 21.5, "policy/kl_ref": 0.02}
    metrics["policy/kl_teacher"] = 0.5
    watched.update(3, metrics | {"perf/tokens_per_s": 1234.5}, SAMPLE)
    watched.close()
    last_frame = shown.getvalue().rpartition("╭")[2]
    metric_texts = (
        "accuracy 0.750",
        "reward 0.800",
        "length 21.5",
        "kl 0.0200",
        "teacher kl 0.5000",
        "tokens/s 1,234",
        "held-out 0.250",
    )
    for text in ("tiny", "step 3/100", *metric_texts, "1:04:40 left", "3 1 1 1 : [b]no[/b] wait yes"):
        assert text in last_frame


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("13 5\n6 2 :", 20, "13 5 6 2 :"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abc … hijk"),
        ("a\x1b[2Jb", 20, "a?[2Jb"),  # escape sequences from the model must not reach the terminal
    ],
)
def test_clip_makes_one_short_printable_line(text, width, expected):
    assert clip(text, width) == expected
