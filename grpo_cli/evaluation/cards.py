"""The parts that the cards of data sets and models are made of, as Markdown."""

import re
from collections.abc import Iterable

from grpo_cli.config.template import TemplateConfig


def markdown_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown_prompt(template: TemplateConfig) -> str:
    """The template as it is, and what belongs to it."""
    ticks = "`" * (max([2, *(len(run) for run in re.findall("`+", template.text))]) + 1)
    notes = ["A problem stands in the place of `{problem}`."]
    if template.chat:
        notes.append("It is the user's turn in the tokenizer's chat template.")
    if template.response_prefix:
        notes.append(f"The response begins with `{template.response_prefix}`.")
    if template.stop:
        notes.append(f"It ended at {' or '.join(f'`{stop}`' for stop in template.stop)}.")
    return f"{ticks}\n{template.text}\n{ticks}\n\n{' '.join(notes)}"
