"""Text files are UTF-8 whatever the locale: every call that opens one says so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import grpo_cli

PACKAGE = Path(grpo_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def text_calls(path: Path) -> Iterator[ast.Call]:
    """The calls of read_text, write_text, and open in text mode."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        is_open = node.func.attr == "open" and ast.unparse(node.func.value) not in ("os", "gzip", "select")
        if node.func.attr in ("read_text", "write_text") or (is_open and "b" not in "".join(map(str, modes))):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_text_file_is_opened_with_an_encoding(path):
    lacking = [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in text_calls(path)
        if "encoding" not in [keyword.arg for keyword in call.keywords]
    ]
    assert lacking == []
