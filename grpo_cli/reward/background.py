"""Slow terms, a user's function or a reward model, which run in a thread next to generation."""

import numbers
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import isfinite
from typing import Any

from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import TrainingError
from grpo_cli.grading import limit_math_verify_in_threads
from grpo_cli.reward.functions import load_function
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.reward.trl import call_as_trl, is_for_trl
from grpo_cli.types import Completion, Problem
from grpo_cli.user_functions import users_traceback

# The training step is that of the responses.
BatchFunction = Callable[[list[Completion], list[Problem], int], Any]
MAX_SHOWN = 400  # characters of a response in a message


class Background:
    """Calls `function` in a separate thread, each time with up to `batch_size` of the waiting responses.

    With `may_skip`, a value may be None: the term does not apply to the response.
    """

    def __init__(self, name: str, function: BatchFunction, batch_size: int, *, may_skip: bool = False) -> None:
        self._name = name
        self._function = function
        self._batch_size = batch_size
        self._may_skip = may_skip
        self._waiting: deque[tuple[Completion, Problem, int, Future[float | None]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")

    def submit(self, completion: Completion, problem: Problem, step: int) -> Future[float | None]:
        """Returns a future of the function's value for one response. It raises TrainingError if the function fails."""
        value: Future[float | None] = Future()
        self._waiting.append((completion, problem, step, value))
        self._thread.submit(self._call)
        return value

    def close(self) -> None:
        """Cancel the waiting responses. A running call is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for *_, value in self._waiting:
            value.cancel()

    def _call(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
        if not batch:  # an earlier call has scored them
            return
        completions, problems, steps, futures = (list(column) for column in zip(*batch, strict=True))
        try:
            values = self._checked(self._function(completions, problems, steps[-1]), problems)
        except BaseException as error:  # otherwise the callers would wait forever
            raised = error if isinstance(error, TrainingError) else self._failure(error, completions, problems, steps)
            for future in futures:
                future.set_exception(raised)
        else:
            for future, value in zip(futures, values, strict=True):
                future.set_result(value)

    def _failure(
        self, error: BaseException, completions: list[Completion], problems: list[Problem], steps: list[int]
    ) -> TrainingError:
        """The error of the function as the user needs it: with the problem, the response, and the lines of their code.

        The response that fails is found by calls with half of the responses each.
        """
        while len(completions) > 1:
            middle = len(completions) // 2
            for half in (slice(middle), slice(middle, None)):
                try:
                    self._function(completions[half], problems[half], steps[-1])
                except BaseException as of_half:
                    error, completions, problems = of_half, completions[half], problems[half]
                    break
            else:
                break  # only these together fail
        others = f" and {len(problems) - 1} others in one call" if len(problems) > 1 else ""
        end = "failed" if isinstance(error, Exception) else "tried to end the process"
        failure = TrainingError(
            f"reward.terms.{self._name} {end}, for a response to problem {problems[0].id}{others}:\n"
            f"{users_traceback(error)}\nThe response: {_shown(completions[0].text)}"
        )
        failure.__cause__ = error
        return failure

    def _checked(self, values: Any, problems: list[Problem]) -> list[float | None]:
        if not hasattr(values, "__len__"):
            raise TrainingError(f"reward.terms.{self._name} returned {values!r}. Return a list of numbers.")
        if len(values) != len(problems):
            raise TrainingError(
                f"reward.terms.{self._name} returned {len(values)} values for {len(problems)} responses. "
                "Return one value for each response."
            )
        return [self._checked_value(value, problem) for value, problem in zip(values, problems, strict=True)]

    def _checked_value(self, value: Any, problem: Problem) -> float | None:
        if value is None and self._may_skip:
            return None
        number = value.item() if hasattr(value, "item") else value  # of numpy and torch
        if not isinstance(number, numbers.Real) or not isfinite(number):
            raise TrainingError(
                f"reward.terms.{self._name} returned {value!r} for problem {problem.id}. Return a finite number."
            )
        return float(number)


def _shown(text: str) -> str:
    if len(text) <= MAX_SHOWN:
        return repr(text)
    half = MAX_SHOWN // 2
    return f"{text[:half]!r} ... {text[-half:]!r} ({len(text)} characters)"


MAX_BATCH = 1024


def user_function(name: str, term: FunctionTerm, template: TemplateConfig) -> Background:
    """Returns the term of a user's function. Raises ConfigError if the function cannot be found."""
    function = load_function(name, term)
    limit_math_verify_in_threads()
    if is_for_trl(function):
        return Background(name, partial(call_as_trl, function, template), MAX_BATCH, may_skip=True)
    if term.batch:
        return Background(name, lambda completions, problems, step: function(completions, problems), MAX_BATCH)
    return Background(name, lambda completions, problems, step: [function(completions[0], problems[0])], batch_size=1)
