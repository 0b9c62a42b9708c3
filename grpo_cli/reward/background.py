"""Slow terms, a user's function or a reward model, which run in a thread next to generation."""

import math
import os
import pkgutil
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from grpo_cli.errors import ConfigError, TrainingError
from grpo_cli.grading import limit_math_verify_in_threads
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.types import Completion, Problem

BatchFunction = Callable[[list[Completion], list[Problem]], Sequence[float]]


class Background:
    """Calls `function` in a separate thread, each time with up to `batch_size` of the waiting responses."""

    def __init__(self, name: str, function: BatchFunction, batch_size: int) -> None:
        self._name = name
        self._function = function
        self._batch_size = batch_size
        self._waiting: deque[tuple[Completion, Problem, Future[float]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")

    def submit(self, completion: Completion, problem: Problem) -> Future[float]:
        """Returns a future of the function's value for one response. It raises what the function raises."""
        value: Future[float] = Future()
        self._waiting.append((completion, problem, value))
        self._thread.submit(self._call)
        return value

    def close(self) -> None:
        """Cancel the waiting responses. A running call is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for _, _, value in self._waiting:
            value.cancel()

    def _call(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
        if not batch:  # an earlier call has scored them
            return
        completions, problems, futures = (list(column) for column in zip(*batch, strict=True))
        try:
            values = self._checked(self._function(completions, problems), problems)
        except BaseException as error:  # otherwise the callers would wait forever
            raised = error if isinstance(error, Exception) else self._ended_process_error(error)
            for future in futures:
                future.set_exception(raised)
        else:
            for future, value in zip(futures, values, strict=True):
                future.set_result(value)

    def _ended_process_error(self, error: BaseException) -> TrainingError:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return TrainingError(
            f"reward.terms.{self._name} tried to end the process: {type(error).__name__}({error}) at "
            f"{place.filename}:{place.lineno}. Return a value, or raise an Exception if there is none."
        )

    def _checked(self, values: Sequence[float], problems: list[Problem]) -> list[float]:
        if len(values) != len(problems):
            raise TrainingError(
                f"reward.terms.{self._name} returned {len(values)} values for {len(problems)} responses. "
                "Return one value for each response."
            )
        for value, problem in zip(values, problems, strict=True):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise TrainingError(
                    f"reward.terms.{self._name} returned {value!r} for problem {problem.id}. Return a finite float."
                )
        return [float(value) for value in values]


MAX_BATCH = 1024


def user_function(name: str, term: FunctionTerm) -> Background:
    """Returns the term of a user's function. Raises ConfigError if the function cannot be found."""
    key = f"reward.terms.{name}.function={term.function}"
    working_dir = os.getcwd()
    if working_dir not in sys.path:
        sys.path.append(working_dir)  # last, so that a file here does not hide a library with the same name
    try:
        function = pkgutil.resolve_name(term.function)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"{key}: cannot be imported ({error}). Write my_package.my_module:my_reward, and make sure that Python "
            "finds it: install the package, or run from the folder that contains it."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key}: its module fails during import: {type(error).__name__}({error}).") from error
    if not callable(function):
        raise ConfigError(f"{key}: is not a function. Give a function of (completion, problem) that returns a float.")
    limit_math_verify_in_threads()
    if term.batch:
        return Background(name, function, MAX_BATCH)
    return Background(name, lambda completions, problems: [function(completions[0], problems[0])], batch_size=1)
