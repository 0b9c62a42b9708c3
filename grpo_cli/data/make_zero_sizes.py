"""The built-in task in two sizes: half of the problems have 2 numbers after the first, half have 4.

The base model for it, `tiny_sizes`, is mostly right about the small ones and mostly wrong about the large ones.
"""

import random

from grpo_cli.data.make_zero import is_heldout, solvable, to_problem
from grpo_cli.types import Problem

SMALL, LARGE = 2, 4  # the numbers that get a sign
MAX_TERM = {SMALL: 12, LARGE: 9}


def problems() -> list[Problem]:
    """The training problems: all small ones, and as many large ones."""
    return [to_problem(numbers) for numbers in _numbers(heldout=False)]


def heldout_problems() -> list[Problem]:
    """The held-out problems, in the same way."""
    return [to_problem(numbers) for numbers in _numbers(heldout=True)]


def size_of(text: str) -> int:
    """How many numbers of a problem get a sign: SMALL or LARGE."""
    return len(text.split()) - 1


def _numbers(heldout: bool) -> list[tuple[int, ...]]:
    small, large = (
        [numbers for numbers in solvable(size, MAX_TERM[size]) if is_heldout(numbers) == heldout]
        for size in (SMALL, LARGE)
    )
    return [*small, *random.Random(0).sample(large, len(small))]
