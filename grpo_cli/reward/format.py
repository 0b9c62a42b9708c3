"""Whether a response keeps to `<think> ... </think> <answer> ... </answer>`."""

from grpo_cli.grading import WHITESPACE

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_reward(text: str) -> float:
    """1 if the four tags stand once each in order, with nothing but white space around and between the blocks.

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
