"""Which rank samples which prompts of a draw."""

from collections.abc import Sequence

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.ranks import rank, world_size
from grpo_cli.sharing import assign_owners
from grpo_cli.types import Prompt


def share(prompts: Sequence[Prompt], sampler: EpochSampler) -> list[int]:
    """The indices of the prompts that this rank samples, in ascending order.

    They are balanced by the lengths of the prompts' last responses if all are known, otherwise assigned in turn. The
    samples do not depend on the assignment.
    """
    in_turn = [range(first, len(prompts), world_size()) for first in range(world_size())]
    expected = [sampler.expected_length(prompt) for prompt in prompts]
    lengths = [length for length in expected if length is not None]
    if len(lengths) < len(expected):
        return list(in_turn[rank()])
    owners = assign_owners([[lengths[i] for i in of_rank] for of_rank in in_turn])
    pairs = (
        (i, owner)
        for of_rank, owners_of_rank in zip(in_turn, owners, strict=True)
        for i, owner in zip(of_rank, owners_of_rank, strict=True)
    )
    return sorted(i for i, owner in pairs if owner == rank())
