"""Examples to learn that are too long for the model are left out; it is an error if that leaves none."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from grpo_cli.errors import DataError

Example = TypeVar("Example")
BATCH = 100  # examples that are measured at once


def check_any_fits(
    examples: Sequence[Example],
    name: str,
    count_tokens: Callable[[Sequence[Example]], list[int]],
    max_tokens: int,
    context: int | None,
) -> None:
    """Raise DataError if all examples are longer than `max_tokens` or the model's `context`, if that is known.

    Measures only as many as it must: usually one batch.
    """
    limit = min(max_tokens, context or max_tokens)
    shortest: list[int] = []  # of each batch
    for first in range(0, len(examples), BATCH):
        shortest.append(min(count_tokens(examples[first : first + BATCH])))
        if shortest[-1] <= limit:
            return
    if shortest:
        raise none_fits(len(examples), name, min(shortest), max_tokens, context)


def none_fits(num: int, name: str, shortest: int, max_tokens: int, context: int | None) -> DataError:
    """The error for `num` examples, the shortest of which is too long."""
    if context is not None and shortest > context:
        return DataError(
            f"All {num} {name} are longer than the {context} tokens that the model reads: the shortest has {shortest}. "
            f"Use a model with a longer context, or shorter {name}."
        )
    return DataError(
        f"All {num} {name} are longer than data.max_tokens={max_tokens}: the shortest has {shortest} tokens. Raise "
        f"data.max_tokens to {shortest} or more."
    )
