import re
import threading

import pytest
from rich.console import Console

from grpo_cli.progress import duration, progress, stage


def test_without_a_terminal_lines_show_how_much_is_done_and_the_time_left(shown):
    with progress(Console(file=shown), "heldout", total=4) as count:
        shown.wait_for("heldout: 0 of 4\n")
        count()
        shown.wait_for("heldout: 1 of 4, 0:00:0")
    assert re.search(r"heldout: 1 of 4, 0:00:\d\d left\n", shown.getvalue())


def test_a_terminal_shows_a_bar_that_disappears(shown):
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    with progress(console, "[b]heldout", total=4) as count:
        count()
        shown.wait_for("[b]heldout: 1 of 4")
    assert shown.getvalue().endswith("\x1b[2K")  # the line is erased


def test_a_stage_ends_with_a_line_that_has_its_seconds_even_on_a_terminal(shown):
    for terminal in (False, True):
        console = Console(file=shown, force_terminal=terminal, color_system=None)
        with stage(console, "starting vLLM"):
            shown.wait_for("starting vLLM ... 0 s")
        assert re.search(r"starting vLLM: \d+\.\d s\n$", shown.getvalue())
        shown.truncate(0)


def test_a_quiet_console_shows_nothing_and_starts_no_thread(shown):
    before = threading.active_count()
    with progress(Console(file=shown, quiet=True), "heldout", total=4) as count:
        count()
        assert threading.active_count() == before
    assert shown.getvalue() == ""


def test_an_error_ends_the_display(shown):
    before = threading.active_count()
    with pytest.raises(KeyError), stage(Console(file=shown), "starting vLLM"):
        raise KeyError
    assert threading.active_count() == before
    assert "starting vLLM: " not in shown.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3920, "1:05:20")])
def test_a_duration_has_hours_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text
