"""Printed text cannot control the terminal."""

import ast
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

import grpo_cli
from grpo_cli import printing
from grpo_cli.screen import Screen

CLEAR = "\x1b[2J\x1b]0;title\x07\x9b31m"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_escape_sequences_in_a_text_are_escaped(is_terminal):
    shown = StringIO()
    screen = Screen(file=shown, width=120, force_terminal=is_terminal, color_system=None)
    table = Table("id")
    table.add_row(f"cell {CLEAR}")
    screen.print(f"text {CLEAR}", markup=False, highlight=False, soft_wrap=True)
    screen.print(table)
    for char in "\x1b\x07\x9b":
        assert char not in shown.getvalue()
    assert r"text \x1b[2J\x1b]0;title\x07\x9b31m" in shown.getvalue()


def test_line_breaks_tabs_and_other_scripts_stay():
    assert printing.printable("a\n\tb 数学 é 👩‍👩‍👧") == "a\n\tb 数学 é 👩‍👩‍👧"
    assert printing.printable("a\u202eb") == r"a\u202eb"


def test_every_console_is_a_screen():
    for path in Path(grpo_cli.__file__).parent.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if ast.unparse(call.func) in ("Console", "rich.print")], path
