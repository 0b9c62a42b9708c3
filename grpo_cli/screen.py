"""The console for all tables and messages: printed text cannot control the terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from grpo_cli.printing import printable


class Screen(Console):
    """rich's Console, which escapes control characters in every string, also in the cells of a table."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)
