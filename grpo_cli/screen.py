"""The console that everything is printed on, so that no text that is printed can command the terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from grpo_cli.printing import printable


class Screen(Console):
    """rich's console; every text that comes to it as a string is made printable, also the cells of a table."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
