"""Whether a response has the format `<think> ... </think> <answer> ... </answer>`."""

from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.grading import WHITESPACE
from grpo_cli.reward.terms.term import Response, Term

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, kw_only=True)
class FormatTerm(Term):
    """1 for one think block followed by one answer block and nothing else, otherwise 0."""

    name: ClassVar[str] = "format"

    def value(self, response: Response) -> float:
        return format_reward(response.text)


@dataclass(frozen=True, kw_only=True)
class TagCountTerm(Term):
    """A quarter for each of the four tags that occurs exactly once."""

    name: ClassVar[str] = "tag_count"

    def value(self, response: Response) -> float:
        return tag_count_reward(response.text)


def format_reward(text: str) -> float:
    """1 if each of the four tags occurs once, in order, with only white space around and between the blocks.

    Otherwise 0.

    >>> format_reward("<think>17 + 26</think> <answer>43</answer>"), format_reward("43")
    (1.0, 0.0)
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return 0.0
    text = text.strip(WHITESPACE)
    opened, thought, answered, closed = (text.index(tag) for tag in TAGS)
    between = text[thought + len("</think>") : answered] if thought < answered else "crossed"
    starts_and_ends = opened == 0 and closed == len(text) - len("</answer>")
    return float(starts_and_ends and opened < thought < answered < closed and not between.strip(WHITESPACE))


def tag_count_reward(text: str) -> float:
    """A quarter for each tag that occurs exactly once."""
    return sum(text.count(tag) == 1 for tag in TAGS) / len(TAGS)
