"""Self-reflection in responses, counted by keyword."""

import re

# The keyword pool of "Understanding R1-Zero-Like Training" (arXiv:2503.20783), and the "wait" of
# DeepSeek-R1-Zero's aha moment (arXiv:2501.12948, table 3).
SELF_CORRECTIONS = (
    "wait",
    "recheck",
    "rethink",
    "reassess",
    "reevaluate",
    "re-evaluate",
    "reevaluation",
    "re-examine",
    "reexamine",
    "reconsider",
    "reanalyze",
    "double-check",
    "check again",
    "think again",
    "verify again",
    "go over the steps",
)
_PATTERN = re.compile(rf"\b(?:{'|'.join(SELF_CORRECTIONS)})\b", re.IGNORECASE)


def count_self_corrections(text: str) -> int:
    """The number of words and phrases of `SELF_CORRECTIONS` in `text`: whole words, in upper or lower case.

    >>> count_self_corrections("No. Wait, let me double-check: the waiter awaits.")
    2
    """
    return sum(1 for _ in _PATTERN.finditer(text))
