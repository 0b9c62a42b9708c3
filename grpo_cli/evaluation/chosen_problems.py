"""The problems that are sampled: those with a gradable answer, and a random choice of them."""

import random
from collections.abc import Sequence

from rich.console import Console

from grpo_cli.choices import OnBadGold
from grpo_cli.errors import DataError
from grpo_cli.reward.reward import gold_fault
from grpo_cli.types import Problem

MAX_SHOWN = 5


def ungradable(problems: Sequence[Problem]) -> dict[str, str]:
    """By problem id, why an answer cannot be graded."""
    return {problem.id: fault for problem in problems if (fault := gold_fault(problem))}


def gradable_problems(problems: Sequence[Problem], on_bad_gold: OnBadGold, console: Console) -> list[Problem]:
    """The problems with a gradable answer; the others are reported.

    Raises DataError if `on_bad_gold` is `error` and there are others, or if no problem remains.
    """
    faults = ungradable(problems)
    if faults:
        summary = (
            f"{len(faults)} of {len(problems)} problems have an answer that cannot be graded:\n{fault_list(faults)}"
        )
        if on_bad_gold == OnBadGold.error:
            raise DataError(f"{summary}\nFix them, or drop them with data.on_bad_gold=drop.")
        if len(faults) == len(problems):
            raise DataError(f"{summary}\nNo problem remains. Set data.grader to match the answers, or use other data.")
        report = f"{summary}\nThey are left out (data.on_bad_gold=drop)."
        console.print(report, markup=False, highlight=False, soft_wrap=True)
    return [problem for problem in problems if problem.id not in faults]


def fault_list(faults: dict[str, str]) -> str:
    """The first few faults, one per line."""
    lines = [f"  {id}: {fault}" for id, fault in list(faults.items())[:MAX_SHOWN]]
    return "\n".join([*lines, *(["  ..."] if len(faults) > MAX_SHOWN else [])])


def draw_problems(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """`count` of the problems, or all if there are fewer, in random order."""
    return random.Random(seed).sample(problems, min(count, len(problems)))
