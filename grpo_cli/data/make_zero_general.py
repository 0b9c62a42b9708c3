"""The built-in task with general prompts: the answer to every fourth problem to train on is withheld, and no rule
judges it. A reward model has to. The held-out problems keep theirs.
"""

from dataclasses import replace

from grpo_cli.choices import Grader
from grpo_cli.data import make_zero
from grpo_cli.types import Problem

EVERY = 4


def problems() -> list[Problem]:
    """The problems to train on, in order of their numbers."""
    return [
        replace(problem, answer="", grader=str(Grader.model)) if number % EVERY == 0 else problem
        for number, problem in enumerate(make_zero.problems(), start=1)
    ]


def heldout_problems() -> list[Problem]:
    """Those of make_zero."""
    return make_zero.heldout_problems()
