"""Makes minibatches from scored groups, and micro-batches that fit in memory from a minibatch.

B sequences, S tokens of all of them in one row, T tokens of the longest response.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo_cli.algorithm.weighting import token_weights
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.ranks import gather, rank
from grpo_cli.rollout.collect import Rollout
from grpo_cli.rollout.support import padded
from grpo_cli.training.own_functions import own_token_weights
from grpo_cli.types import ScoredGroup


@dataclass(frozen=True, eq=False)
class TrainingSequence:
    """A prompt with one response, its advantage and its weight.

    Compared by identity, so that it can be a key even if another one has the same tokens.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...] | None = None  # one for each response token; None for a demonstration
    advantage: float | tuple[float, ...] = 0.0  # one for the whole response, or one for each token
    weight: float | tuple[float, ...] = 0.0  # of each of its tokens in the objective, likewise
    support: tuple[bytes, ...] | None = None  # of each token, see rollout/support.py; None: the whole vocabulary
    ages: tuple[int, ...] = ()  # of each token, see Completion; none: 0

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

    @property
    def advantages(self) -> tuple[float, ...]:
        """One for each response token."""
        return self._by_token(self.advantage)

    @property
    def weights(self) -> tuple[float, ...]:
        """One for each response token."""
        return self._by_token(self.weight)

    @property
    def has_advantage(self) -> bool:
        return any(self.advantages)

    @property
    def has_weight(self) -> bool:
        return any(self.weights)

    def _by_token(self, value: float | tuple[float, ...]) -> tuple[float, ...]:
        return value if isinstance(value, tuple) else (value,) * len(self.response_ids)


TokenValues = Mapping[TrainingSequence, Tensor]  # one value for each response token of a sequence


@dataclass(frozen=True)
class MicroBatch:
    """Sequences in one row, without padding. Row b of a `_BT` tensor belongs to the response of sequence b."""

    sequences: tuple[TrainingSequence, ...]
    tokens_S: Tensor
    lengths: tuple[int, ...]  # of the sequences, prompt and response
    predicts_S: Tensor  # True if the next token belongs to a response
    mask_BT: Tensor  # True for tokens, False for padding

    @property
    def inputs(self) -> tuple[Tensor, tuple[int, ...], Tensor, Tensor | None]:
        """The arguments of `TokenLogprobs`."""
        support_NK = padded([s.support for s in self.sequences], self.tokens_S.device)
        return self.tokens_S, self.lengths, self.predicts_S, support_NK

    @property
    def advantages_BT(self) -> Tensor:
        return self.scatter([advantage for s in self.sequences for advantage in s.advantages])

    @property
    def weights_BT(self) -> Tensor:
        return self.scatter([weight for s in self.sequences for weight in s.weights])

    @property
    def sampler_logprobs_BT(self) -> Tensor | None:
        """None if the responses were not sampled from the policy."""
        known = [s.sampler_logprobs for s in self.sequences if s.sampler_logprobs is not None]
        if len(known) < len(self.sequences):
            return None
        return self.scatter([logprob for logprobs in known for logprob in logprobs])

    @property
    def ages_BT(self) -> Tensor | None:
        """None if every token was sampled with the newest weights."""
        ages = [age for s in self.sequences for age in s.ages or (0,) * len(s.response_ids)]
        return self.scatter(ages) if any(s.ages for s in self.sequences) else None

    def token_values_BT(self, values: TokenValues) -> Tensor:
        """The values of these sequences' response tokens at their positions; 0 elsewhere."""
        parts = [values[s] for s in self.sequences]
        return self.scatter(torch.cat(parts) if parts else [])

    def by_sequence(self, values_N: Tensor) -> dict[TrainingSequence, Tensor]:
        """Values of the response tokens, split into those of each sequence; the reverse of `torch.cat`."""
        lengths = [len(s.response_ids) for s in self.sequences]
        return dict(zip(self.sequences, values_N.split(lengths), strict=True)) if lengths else {}

    def scatter(self, values: Sequence[float] | Tensor) -> Tensor:
        """Values of the response tokens, one sequence after another, at their positions; 0 elsewhere."""
        values = torch.as_tensor(values, dtype=torch.float32, device=self.mask_BT.device)
        return torch.zeros_like(self.mask_BT, dtype=torch.float32).masked_scatter(self.mask_BT, values)


def make_sequences(group: ScoredGroup) -> list[TrainingSequence]:
    """The responses of a group as sequences, without advantage and weight."""
    prompt_ids = group.prompt.token_ids
    return [
        TrainingSequence(prompt_ids, c.token_ids, c.logprobs, support=c.support, ages=c.token_ages)
        for c in group.completions
    ]


def make_minibatches(
    rollout: Rollout,
    advantages: Sequence[Sequence[Tensor]],
    selected_PG: Tensor,
    algorithm: AlgorithmConfig,
    max_new_tokens: int,
) -> list[list[TrainingSequence]]:
    """This rank's share of each minibatch, with weights that count all ranks; called on all ranks.

    A minibatch has consecutive prompts with their whole groups, in the order in which they were drawn. So minibatches
    are the same for any number of ranks. `advantages` has one for each response of each group.
    """
    return [
        weighted_minibatch(
            [sequence for index in indices for sequence in make_sequences(rollout.groups[index])],
            [advantage for index in indices for advantage in advantages[index]],
            selected_PG[indices].flatten(),
            algorithm,
            max_new_tokens,
        )
        for indices in minibatch_groups(rollout, algorithm.num_minibatches)
    ]


def minibatch_groups(rollout: Rollout, num_minibatches: int) -> list[list[int]]:
    """The indices of this rank's groups in each minibatch; called on all ranks."""
    num_groups = sum(gather(len(rollout.groups)))
    members: list[list[int]] = [[] for _ in range(num_minibatches)]
    for index, position in enumerate(rollout.positions):
        members[position * num_minibatches // num_groups].append(index)
    return members


def weighted_minibatch(
    sequences: Sequence[TrainingSequence],
    advantages_B: Sequence[Tensor],
    selected_B: Tensor,
    algorithm: AlgorithmConfig,
    max_new_tokens: int,
) -> list[TrainingSequence]:
    """This rank's share of one minibatch, with weights that count all ranks; called on all ranks.

    An advantage is one value for the whole response, (), or one for each token, (T,).
    """
    if place := algorithm.functions.weighting:
        sequences = [replace(s, advantage=_as_plain(a)) for s, a in zip(sequences, advantages_B, strict=True)]
        weights = own_token_weights(
            place,
            [s.sampler_logprobs or () for s in sequences],
            [s.advantages for s in sequences],
            selected_B.tolist(),
            max_new_tokens,
        )
        return [replace(s, weight=weight) for s, weight in zip(sequences, weights, strict=True)]
    lengths_B = torch.tensor([len(s.response_ids) for s in sequences], dtype=torch.long)
    lengths_of_ranks, selected_of_ranks = zip(*gather((lengths_B, selected_B)), strict=True)
    # Over all ranks: otherwise the tokens of a rank with short answers would weigh more.
    weights_B = token_weights(
        torch.cat(lengths_of_ranks),
        weighting=algorithm.weighting,
        max_new_tokens=max_new_tokens,
        selected_B=torch.cat(selected_of_ranks),
    ).split([len(lengths) for lengths in lengths_of_ranks])[rank()]
    return [
        replace(sequence, advantage=_as_plain(advantage), weight=weight)
        for sequence, advantage, weight in zip(sequences, advantages_B, weights_B.tolist(), strict=True)
    ]


def _as_plain(advantage: Tensor) -> float | tuple[float, ...]:
    return tuple(advantage.tolist()) if advantage.dim() else advantage.item()


def make_microbatches(
    sequences: Sequence[TrainingSequence], token_budget: int, device: torch.device
) -> list[MicroBatch]:
    """The sequences in order, with at most `token_budget` tokens in a micro-batch; a longer sequence gets its own."""
    batches: list[list[TrainingSequence]] = []
    num_tokens = token_budget
    for sequence in sequences:
        if num_tokens + sequence.length > token_budget:
            batches.append([])
            num_tokens = 0
        batches[-1].append(sequence)
        num_tokens += sequence.length
    return [_microbatch(members, device) for members in batches]


def _microbatch(sequences: Sequence[TrainingSequence], device: torch.device) -> MicroBatch:
    tokens = [token for s in sequences for token in (*s.prompt_ids, *s.response_ids)]
    is_response = [i >= len(s.prompt_ids) for s in sequences for i in range(s.length)]
    sizes_B = torch.tensor([len(s.response_ids) for s in sequences])
    return MicroBatch(
        sequences=tuple(sequences),
        tokens_S=torch.tensor(tokens, device=device),
        lengths=tuple(s.length for s in sequences),
        predicts_S=torch.tensor([*is_response[1:], False], device=device),
        mask_BT=(torch.arange(sizes_B.max()) < sizes_B[:, None]).to(device),
    )


def idle_microbatch(device: torch.device) -> MicroBatch:
    """A micro-batch without response tokens, which changes nothing.

    A rank forwards it while other ranks have real ones, since all ranks must call the network equally often.
    """
    no_response = torch.zeros(1, 1, dtype=torch.bool, device=device)
    return MicroBatch((), torch.zeros(1, dtype=torch.long, device=device), (1,), no_response[0], no_response)
