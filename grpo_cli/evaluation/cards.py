"""The parts shared by the cards of data sets and models, as Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence

from huggingface_hub import CardData

from grpo_cli.config.template import TemplateConfig


def card_text(metadata: CardData, sections: Iterable[str]) -> str:
    """A card as the Hub shows it: metadata in YAML, then the sections."""
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of rows with the same keys, which are its headings."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fact_table(facts: Mapping[str, str], heading: str = "setting") -> str:
    """A table of names and values, without the empty values."""
    return markdown_table([{heading: name, "value": value} for name, value in facts.items() if value])


def prompt_section(template: TemplateConfig) -> str:
    """The template as it is, and how it is used."""
    texts = [template.text, *filter(None, [template.system])]
    ticks = "`" * (max([2, *(len(run) for text in texts for run in re.findall("`+", text))]) + 1)
    notes = ["`{problem}` is replaced by the problem."]
    if template.examples:
        notes.append(f"{len(template.examples)} solved examples come before it.")
    if template.chat:
        notes.append("The text is the user's turn in the tokenizer's chat template.")
    if template.response_prefix:
        notes.append(f"The response begins with `{template.response_prefix}`.")
    if template.stop:
        notes.append(f"The response ends at {' or '.join(f'`{stop}`' for stop in template.stop)}.")
    blocks = [f"{ticks}\n{template.text}\n{ticks}", " ".join(notes)]
    if template.system:
        blocks += ["The system prompt:", f"{ticks}\n{template.system}\n{ticks}"]
    return "\n\n".join(["## Prompt", *blocks])
