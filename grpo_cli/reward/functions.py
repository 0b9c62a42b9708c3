"""Users' reward functions: finding them, and checking what they need."""

from collections.abc import Callable
from typing import Any

from grpo_cli.config.reward import RewardConfig
from grpo_cli.errors import ConfigError
from grpo_cli.reward.terms import FunctionTerm, typed_terms
from grpo_cli.reward.trl import columns_of, is_for_trl, missing_columns
from grpo_cli.types import Problem
from grpo_cli.user_functions import users_function


def load_function(name: str, term: FunctionTerm) -> Callable[..., Any]:
    """Returns the user's function. Raises ConfigError if it cannot be found or its module cannot be imported."""
    return users_function(
        f"reward.terms.{name}.function",
        term.function,
        example="my_rewards.py:my_reward",
        is_called="(completion, problem) that returns a float",
    )


def check_functions(config: RewardConfig, problem: Problem, columns: str) -> None:
    """Raise ConfigError if a user's function cannot be imported, or needs a column that `problem` does not have.

    `columns` is the setting of the data's columns.
    """
    for name, term in typed_terms(config.terms).items():
        if not isinstance(term, FunctionTerm):
            continue
        function = load_function(name, term)
        if is_for_trl(function) and (missing := missing_columns(function, problem)):
            raise ConfigError(
                f"reward.terms.{name}.function={term.function} is called as TRL calls it, and needs "
                f"{', '.join(missing)}. Of the data it gets {', '.join(columns_of([problem]))}. Set "
                f"{columns}.extra=[{','.join([*problem.extra, *missing])}] if the data have such columns, or give "
                "these parameters a default."
            )
