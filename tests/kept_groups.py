"""Makes kept groups with defaults for all fields that are not given."""

from typing import Any

from grpo_cli.runs.rollouts import KeptGroup, KeptResponse, Split
from grpo_cli.types import Verdict


def response(text: str = "no wait yes", **fields: Any) -> KeptResponse:
    defaults = {"tokens": 3, "truncated": False, "reward": 1.1, "terms": {"accuracy": 1.0, "format": 1.0}}
    judged = {"extracted": "3 -1 -1 -1", "verdict": Verdict.correct, "advantage": 1.725}
    return KeptResponse(text, **(defaults | judged | fields))


def group(step: int = 2, *responses: KeptResponse, **fields: Any) -> KeptGroup:
    """One response if none is given."""
    problem = {"problem": "3-1-1-1", "question": "3 1 1 1", "prompt": "3 1 1 1 :", "answer": "0", "grader": "math"}
    return KeptGroup(step, **({"split": Split.train} | problem | fields), responses=responses or (response(),))
