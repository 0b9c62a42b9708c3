"""The built-in task with general prompts: every fourth training problem has no answer, so that only a reward model can
grade it. The held-out problems keep their answers.
"""

from dataclasses import replace

from grpo_cli.choices import Grader
from grpo_cli.data import make_zero
from grpo_cli.types import Problem

EVERY = 4


def problems() -> list[Problem]:
    """The training problems, sorted by their numbers."""
    return [
        replace(problem, answer="", grader=str(Grader.model)) if number % EVERY == 0 else problem
        for number, problem in enumerate(make_zero.problems(), start=1)
    ]


def heldout_problems() -> list[Problem]:
    """The held-out problems of make_zero."""
    return make_zero.heldout_problems()
