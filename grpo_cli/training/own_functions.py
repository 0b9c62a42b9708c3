"""Parts of the objective that are Python functions of the user.

A function gets those of the values below that its parameters name, by keyword. Padding is 0 in all of them.

P prompts, G completions a prompt, B responses, T tokens.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grpo_cli.errors import ConfigError
from grpo_cli.ranks import gather, rank
from grpo_cli.types import ScoredGroup, Verdict
from grpo_cli.user_functions import users_function

GIVEN = {
    "advantage": ("rewards_PG", "terms_PG", "correct_PG", "lengths_PG"),
    "weighting": ("mask_BT", "lengths_B", "selected_B", "advantages_BT", "sampler_logprobs_BT", "max_new_tokens"),
    "surrogate": (
        "logprobs_BT",
        "old_logprobs_BT",
        "ref_logprobs_BT",
        "sampler_logprobs_BT",
        "advantages_BT",
        "mask_BT",
    ),
}


@cache
def own_function(part: str, place: str) -> Callable[..., Any]:
    """Returns the user's function for algorithm.functions.<part>, which ignores the values that it does not name.

    Raises ConfigError if it cannot be imported, or has a parameter without a default that is not one of the values.
    """
    setting, names = f"algorithm.functions.{part}", ", ".join(GIVEN[part])
    function = users_function(
        setting, place, example=f"my_objective.py:my_{part}", is_called=f"some of {names} that returns a tensor"
    )
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [name for name in required if name not in GIVEN[part]]
    if unknown:
        raise ConfigError(
            f"{setting}={place}: there is no value {', '.join(unknown)} for its parameters. Use {names}, or give the "
            "parameter a default."
        )
    wanted = {p.name for p in parameters}
    return lambda **values: function(**{name: values[name] for name in wanted & values.keys()})


def own_advantages(place: str, rewards_PG: Tensor, groups: Sequence[ScoredGroup]) -> Tensor:
    """The (P, G) advantages of this rank's groups; called on all ranks. The function gets the groups of all ranks."""
    rows = [
        [
            (s.terms, s.verdict is Verdict.correct, len(c.token_ids))
            for s, c in zip(g.scores, g.completions, strict=True)
        ]
        for g in groups
    ]
    of_ranks = gather((rewards_PG, rows))
    all_rewards_PG = torch.cat([rewards for rewards, _ in of_ranks])
    all_rows = [row for _, of_rank in of_ranks for row in of_rank]
    names = sorted({name for row in all_rows for terms, _, _ in row for name in terms})
    advantages_PG = own_function("advantage", place)(
        rewards_PG=all_rewards_PG,
        terms_PG={
            name: torch.tensor([[terms.get(name, 0.0) for terms, _, _ in row] for row in all_rows], dtype=torch.float64)
            for name in names
        },
        correct_PG=torch.tensor([[correct for _, correct, _ in row] for row in all_rows]),
        lengths_PG=torch.tensor([[length for _, _, length in row] for row in all_rows]),
    )
    check_returned("advantage", place, advantages_PG, {"(P, G)": tuple(all_rewards_PG.shape)})
    return advantages_PG.split([len(rewards) for rewards, _ in of_ranks])[rank()]


def own_token_weights(
    place: str,
    sampler_logprobs: Sequence[Sequence[float]],
    advantages: Sequence[Sequence[float]],
    selected: Sequence[bool],
    max_new_tokens: int,
) -> list[float | tuple[float, ...]]:
    """The weight of each of this rank's responses, or of each of its tokens; called on all ranks.

    The arguments are of this rank. The function gets the responses of all ranks, so that its denominators belong to the
    whole optimizer step. A response that is not selected gets the weight 0.
    """
    of_ranks = gather((list(sampler_logprobs), list(advantages), list(selected)))
    all_logprobs, all_advantages, all_selected = (
        list(chain.from_iterable(part)) for part in zip(*of_ranks, strict=True)
    )
    lengths = list(map(len, all_logprobs))
    lengths_B, selected_B = torch.tensor(lengths), torch.tensor(all_selected)
    weights = own_function("weighting", place)(
        mask_BT=torch.arange(max(lengths)) < lengths_B[:, None],
        lengths_B=lengths_B,
        selected_B=selected_B,
        advantages_BT=_padded(all_advantages),
        sampler_logprobs_BT=_padded(all_logprobs),
        max_new_tokens=max_new_tokens,
    )
    num_responses, num_tokens = len(lengths), max(lengths)
    check_returned("weighting", place, weights, {"(B,)": (num_responses,), "(B, T)": (num_responses, num_tokens)})
    first = sum(len(logprobs) for logprobs, _, _ in of_ranks[: rank()])
    return [
        (tuple(row[:length]) if isinstance(row, list) else row) if is_selected else 0.0
        for row, length, is_selected in list(zip(weights.tolist(), lengths, all_selected, strict=True))[
            first : first + len(selected)
        ]
    ]


def check_returned(part: str, place: str, returned: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ConfigError if what a user's function returned is not a finite tensor of one of the shapes."""
    key = f"algorithm.functions.{part}={place}"
    if not isinstance(returned, Tensor) or tuple(returned.shape) not in shapes.values():
        seen = f"shape {tuple(returned.shape)}" if isinstance(returned, Tensor) else type(returned).__name__
        wanted = " or ".join(f"{name}, here {shape}" for name, shape in shapes.items())
        raise ConfigError(f"{key}: returned {seen}. Return a tensor of shape {wanted}.")
    if not returned.isfinite().all():
        raise ConfigError(
            f"{key}: returned {returned[~returned.isfinite()][0].item()}. Padding is 0 in what the function gets: "
            "divide by at least 1, for example."
        )


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.float32) for row in rows], batch_first=True)
