"""Reward functions that were written for TRL's GRPOTrainer, called as it calls them.

See "Using a custom reward function" in TRL's documentation. Arguments are keywords, each a list with one value per
response: `prompts`, `completions`, `completion_ids`, and the columns of the data. In a chat, a prompt is the list of
turns before the response and a completion the turn of the response, otherwise they are texts.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from grpo_cli.config.template import TemplateConfig
from grpo_cli.types import Completion, Problem

RESPONSES = {"prompts", "completions", "completion_ids"}
TRAINER = {"trainer_state", "log_extra", "log_metric"}


def is_for_trl(function: Callable[..., Any]) -> bool:
    """Whether a parameter has a name that TRL gives; r1zero's own batch function is (completions, problems)."""
    names = set(_parameters(function))
    return not names.isdisjoint(RESPONSES) and names != {"completions", "problems"}


def missing_columns(function: Callable[..., Any], problem: Problem) -> list[str]:
    """The parameters without a default that neither TRL nor the columns of the problem's row give."""
    given = {*RESPONSES, *TRAINER, *columns_of([problem])}
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in _parameters(function).items()
        if parameter.kind in by_keyword and parameter.default is parameter.empty and name not in given
    ]


def call_as_trl(
    function: Callable[..., Any],
    template: TemplateConfig,
    completions: Sequence[Completion],
    problems: Sequence[Problem],
    step: int,
) -> Any:
    """What the function returns for these responses. It gets only the arguments that it takes."""
    parameters = _parameters(function)
    prompts: list[Any] = [template.turns(problem.text) for problem in problems]
    responses: list[Any] = [completion.text for completion in completions]
    if template.chat:  # the turns do not contain the start of the response
        responses = [[{"role": "assistant", "content": template.response_prefix + text}] for text in responses]
    else:
        prompts = [turns[-1]["content"] for turns in prompts]
    arguments = columns_of(problems) | {
        "prompts": prompts,
        "completions": responses,
        "completion_ids": [list(completion.token_ids) for completion in completions],
        "trainer_state": SimpleNamespace(global_step=step),
        "log_extra": _ignore,
        "log_metric": _ignore,
    }
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        arguments = {name: value for name, value in arguments.items() if name in parameters}
    values = function(**arguments)
    return asyncio.run(values) if inspect.iscoroutine(values) else values


def columns_of(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """The columns of `data.columns.extra`; and id, problem and answer, unless these are among them."""
    names = dict.fromkeys(name for problem in problems for name in problem.extra)
    own = {
        "id": [problem.id for problem in problems],
        "problem": [problem.text for problem in problems],
        "answer": [problem.answer for problem in problems],
    }
    others = [name for name in names if name not in ("prompt", "completion")]  # TRL leaves these out too
    return own | {name: [problem.extra.get(name) for problem in problems] for name in others}


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some functions that are written in C
        return {}


def _ignore(*_: Any) -> None:
    """`log_extra` and `log_metric`: there is no place for what they log."""
