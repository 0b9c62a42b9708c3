"""From scored groups to minibatches, and from a minibatch to micro-batches that fit into memory.

B sequences, S positions of prompt and response, T = S - 1 predicted positions, padded on the right.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from grpo_cli.algorithm.weighting import token_weights
from grpo_cli.config.schema import AlgorithmConfig
from grpo_cli.ranks import gather, rank
from grpo_cli.rollout.collect import Rollout
from grpo_cli.types import ScoredGroup

Item = TypeVar("Item")

MAX_PADDING = 0.05  # of a micro-batch, unless it would be smaller than
MIN_FILLED = 0.125  # of the token budget


@dataclass(frozen=True, eq=False)
class TrainingSequence:
    """A prompt with one response, and how much its tokens count. Two are never equal, so that they can be keys."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...] | None = None  # one for each response token; None of a demonstration
    advantage: float = 0.0
    weight: float = 0.0  # of each of its tokens in the objective

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class MicroBatch:
    """Sequences side by side. Column t of a `_BT` tensor belongs to the prediction of tokens_BS[:, t + 1]."""

    sequences: tuple[TrainingSequence, ...]
    tokens_BS: Tensor
    mask_BT: Tensor  # True where a response token is predicted

    @property
    def advantages_B(self) -> Tensor:
        return torch.tensor([s.advantage for s in self.sequences], device=self.mask_BT.device)

    @property
    def weights_B(self) -> Tensor:
        return torch.tensor([s.weight for s in self.sequences], device=self.mask_BT.device)

    @property
    def sampler_logprobs_BT(self) -> Tensor | None:
        """None where the responses were not sampled from the policy."""
        if any(s.sampler_logprobs is None for s in self.sequences):
            return None
        return self.scatter([logprob for s in self.sequences for logprob in s.sampler_logprobs])

    def scatter(self, values: Sequence[float] | Tensor) -> Tensor:
        """Values of the response tokens, one sequence after the other, in their places; elsewhere 0."""
        values = torch.as_tensor(values, dtype=torch.float32, device=self.mask_BT.device)
        return torch.zeros_like(self.mask_BT, dtype=torch.float32).masked_scatter(self.mask_BT, values)


def make_sequences(group: ScoredGroup) -> list[TrainingSequence]:
    """The responses of a group as they were sampled, of no weight yet."""
    return [TrainingSequence(group.prompt.token_ids, c.token_ids, c.logprobs) for c in group.completions]


def make_minibatches(
    rollout: Rollout,
    advantages_PG: Tensor,
    selected_PG: Tensor,
    algorithm: AlgorithmConfig,
    max_new_tokens: int,
) -> list[list[TrainingSequence]]:
    """This rank's share of each minibatch, with the weights that its tokens have over all ranks; called on all.

    A minibatch is a run of consecutive prompts with their whole groups, in the order in which they were drawn: the
    same on any number of ranks.
    """
    num_groups = sum(gather(len(rollout.groups)))
    members: list[list[int]] = [[] for _ in range(algorithm.num_minibatches)]
    for index, position in enumerate(rollout.positions):
        members[position * algorithm.num_minibatches // num_groups].append(index)
    return [
        weighted_minibatch(
            [sequence for index in indices for sequence in make_sequences(rollout.groups[index])],
            advantages_PG[indices].flatten(),
            selected_PG[indices].flatten(),
            algorithm,
            max_new_tokens,
        )
        for indices in members
    ]


def weighted_minibatch(
    sequences: Sequence[TrainingSequence],
    advantages_B: Tensor,
    selected_B: Tensor,
    algorithm: AlgorithmConfig,
    max_new_tokens: int,
) -> list[TrainingSequence]:
    """This rank's share of one minibatch, with the weights that its tokens have over all ranks; called on all."""
    lengths_B = torch.tensor([len(s.response_ids) for s in sequences], dtype=torch.long)
    lengths_of_ranks, selected_of_ranks = zip(*gather((lengths_B, selected_B)), strict=True)
    # Over all ranks: else a rank with short answers would weigh its tokens more.
    weights_B = token_weights(
        torch.cat(lengths_of_ranks),
        weighting=algorithm.weighting,
        max_new_tokens=max_new_tokens,
        selected_B=torch.cat(selected_of_ranks),
    ).split([len(lengths) for lengths in lengths_of_ranks])[rank()]
    return [
        replace(sequence, advantage=advantage, weight=weight)
        for sequence, advantage, weight in zip(sequences, advantages_B.tolist(), weights_B.tolist(), strict=True)
    ]


def make_microbatches(
    sequences: Sequence[TrainingSequence], token_budget: int, pad_id: int, device: torch.device
) -> list[MicroBatch]:
    """Sequences of like length together, at most `token_budget` tokens with the padding counted."""
    return [_pad(members, pad_id, device) for members in by_length(sequences, token_budget, lambda s: s.length)]


def by_length(items: Sequence[Item], token_budget: int, length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items of like length together, so many that each at the longest one's length is within the budget.

    A list that is worth a call ends before an item for whose sake too much of it would be padding.
    """
    members: list[Item] = []
    num_tokens = 0  # in `members`, without padding
    for item in sorted(items, key=length):
        padded = length(item) * (len(members) + 1)
        padding = padded - num_tokens - length(item)
        is_worth_a_call = num_tokens >= MIN_FILLED * token_budget
        if members and (padded > token_budget or (is_worth_a_call and padding > MAX_PADDING * padded)):
            yield members
            members, num_tokens = [], 0
        members.append(item)
        num_tokens += length(item)
    if members:
        yield members


def _pad(sequences: Sequence[TrainingSequence], pad_id: int, device: torch.device) -> MicroBatch:
    width = max(s.length for s in sequences)
    tokens_BS = torch.full((len(sequences), width), pad_id)
    mask_BT = torch.zeros(len(sequences), width - 1, dtype=torch.bool)
    for row, s in enumerate(sequences):
        tokens_BS[row, : s.length] = torch.tensor(s.prompt_ids + s.response_ids)
        mask_BT[row, len(s.prompt_ids) - 1 : s.length - 1] = True
    return MicroBatch(tuple(sequences), tokens_BS.to(device), mask_BT.to(device))


def idle_microbatch(pad_id: int, device: torch.device) -> MicroBatch:
    """No token of a response: it goes through the network for the other ranks' sake, and changes nothing."""
    return MicroBatch((), torch.full((1, 2), pad_id, device=device), torch.zeros(1, 1, dtype=torch.bool, device=device))


def padding_fraction(microbatches: Sequence[MicroBatch]) -> tuple[int, int]:
    """(padded positions, all positions), to be divided once they are added up."""
    positions = sum(m.tokens_BS.numel() for m in microbatches)
    return positions - sum(s.length for m in microbatches for s in m.sequences), positions
