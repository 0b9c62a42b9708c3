"""Examples that are too long are left out; it is an error if that leaves none."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from grpo_cli.errors import DataError

Example = TypeVar("Example")
BATCH = 100  # examples that are measured at once


def check_any_fits(
    examples: Sequence[Example],
    count_tokens: Callable[[Sequence[Example]], list[int]],
    limit: int,
    none_fits: Callable[[int, int], DataError],
) -> None:
    """Raise `none_fits(number of examples, tokens of the shortest)` if all examples are longer than `limit` tokens.

    Measures only as many as it must: usually one batch.
    """
    shortest: list[int] = []  # of each batch
    for first in range(0, len(examples), BATCH):
        shortest.append(min(count_tokens(examples[first : first + BATCH])))
        if shortest[-1] <= limit:
            return
    if shortest:
        raise none_fits(len(examples), min(shortest))


def no_example_fits(num: int, shortest: int, name: str, max_tokens: int, context: int | None) -> DataError:
    """The error for `num` examples to learn: they are longer than data.max_tokens or the model's context."""
    if context is not None and shortest > context:
        return DataError(
            f"All {num} {name} are longer than the {context} tokens that the model reads: the shortest has {shortest}. "
            f"Use a model with a longer context, or shorter {name}."
        )
    return DataError(
        f"All {num} {name} are longer than data.max_tokens={max_tokens}: the shortest has {shortest} tokens. Raise "
        f"data.max_tokens to {shortest} or more."
    )
