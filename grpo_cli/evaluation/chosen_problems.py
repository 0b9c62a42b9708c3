"""The problems that are sampled: those with a gradable answer, and a random choice of them."""

import random
from collections.abc import Sequence

from rich.console import Console

from grpo_cli.choices import OnBadGold
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.templates import render_prompts
from grpo_cli.errors import DataError
from grpo_cli.model import BaseModel
from grpo_cli.reward.reward import gold_fault
from grpo_cli.types import Problem, Prompt

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


def usable_prompts(
    problems: Sequence[Problem], model: BaseModel, config: TrainConfig, console: Console
) -> list[Prompt]:
    """The prompts of the problems that can be graded and are short enough. Reports how many others there are.

    Raises DataError if none is left.
    """
    gradable = gradable_problems(problems, config.data.on_bad_gold, console)
    limit = config.rollout.max_prompt_tokens
    prompts, num_dropped = render_prompts(gradable, config.template, model.tokenizer, limit)
    if num_dropped:
        setting = f"rollout.max_prompt_tokens={limit}"
        console.print(f"{num_dropped} of {len(problems)} prompts are longer than {setting} and are left out.")
    if not prompts:
        raise DataError("No problem is left to train or evaluate on.")
    return prompts


def fault_list(faults: dict[str, str]) -> str:
    """The first few faults, one per line."""
    lines = [f"  {id}: {fault}" for id, fault in list(faults.items())[:MAX_SHOWN]]
    return "\n".join([*lines, *(["  ..."] if len(faults) > MAX_SHOWN else [])])


def draw_problems(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """`count` of the problems, or all if there are fewer, in random order."""
    return random.Random(seed).sample(problems, min(count, len(problems)))
