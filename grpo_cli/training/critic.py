"""The critic: a network that estimates the rewards to come at each token, and its update.

P prompts of this rank, G completions a prompt, H hidden size, N response tokens of several sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grpo_cli.algorithm.value import value_loss
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.critic import CriticConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import CheckpointError
from grpo_cli.metrics.metrics import Tally
from grpo_cli.model import BaseModel, load_second_model
from grpo_cli.ranks import gather
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.advantages import penalised_rewards
from grpo_cli.training.balance import balanced, pad_to_all_ranks
from grpo_cli.training.batch import (
    MicroBatch,
    TrainingSequence,
    idle_microbatch,
    make_microbatches,
    make_sequences,
    minibatch_groups,
)
from grpo_cli.training.engine import Engine
from grpo_cli.training.logprobs import TokenLogprobs
from grpo_cli.training.network import load_network
from grpo_cli.training.policy import Policy
from grpo_cli.training.returns import PerToken, critic_advantages, explained_variance
from grpo_cli.types import ScoredGroup

FOLDER = "critic"  # in a checkpoint, next to the policy's state
LR_FACTOR = 10  # the learning rate relative to the policy's, if it is not set


def rl_critic(model: BaseModel, config: TrainConfig) -> "Critic | None":
    """The critic of `r1zero train`, or None if the settings have none; called on all ranks."""
    return None if config.critic is None else Critic(model, config, config.critic)


class Critic:
    """The critic in training, and its optimizer. Its state is in CPU memory unless it is needed, if the settings of the
    cluster move the trainer there.
    """

    def __init__(self, model: BaseModel, config: TrainConfig, settings: CriticConfig) -> None:
        self.warmup_steps = settings.warmup_steps
        self._algorithm = config.algorithm
        self._value_clip = settings.value_clip
        if settings.path is not None:
            model = load_second_model("critic.path", settings.path, model, config.rollout.longest_sequence)
        network = value_network(model, config.cluster)
        self._tokens_per_microbatch = config.cluster.tokens_per_microbatch if network.packs else 1
        lr = LR_FACTOR * config.optimizer.lr if settings.lr is None else settings.lr
        steps_per_update = config.algorithm.num_minibatches * config.algorithm.num_epochs
        self._engine = Engine(
            network,
            replace(config.optimizer, lr=lr),
            config.cluster,
            total_steps=config.steps * steps_per_update,
            name="critic",
        )
        self._engine.offload()

    @torch.no_grad()
    def values(self, groups: Sequence[ScoredGroup]) -> list[list[Tensor]]:
        """The (T,) value of each response's tokens, each before the token is sampled; called on all ranks."""
        self._engine.reload()
        sequences = [make_sequences(group) for group in groups]
        found: dict[TrainingSequence, Tensor] = {}
        for microbatch in self._packed([s for of_group in sequences for s in of_group]):
            found |= microbatch.by_sequence(self._values_N(microbatch).cpu())
        return [[found[s] for s in of_group] for of_group in sequences]

    def update(self, minibatches: Sequence[Sequence["ValuedSequence"]]) -> Tally:
        """Take one optimizer step per minibatch and epoch towards the returns; called on all ranks.

        `minibatches` holds this rank's sequences. The loss is the mean over the tokens of a minibatch on all ranks, so
        splitting it into micro-batches changes only rounding.
        """
        self._engine.reload()
        tally = _quality([s for minibatch in minibatches for s in minibatch])
        batches = [(self._packed(balanced(minibatch)), _num_tokens(minibatch)) for minibatch in minibatches]
        for _ in range(self._algorithm.num_epochs):
            for microbatches, num_tokens in batches:
                tally.mean("critic/lr", self._engine.lr, 1)
                for microbatch in microbatches:
                    self._accumulate(microbatch, num_tokens, tally)
                self._engine.step(tally)
        self._engine.offload()
        return tally

    def _accumulate(self, microbatch: MicroBatch, num_tokens: int, tally: Tally) -> None:
        old_N, returns_N = (
            torch.tensor([v for s in microbatch.sequences for v in getattr(s, name)], device=self._engine.device)
            for name in ("values", "returns")
        )
        losses_N, clipped_N = value_loss(self._values_N(microbatch), old_N, returns_N, clip=self._value_clip)
        loss = losses_N.sum() / num_tokens
        self._engine.backward(loss)
        tally.mean("critic/loss", loss.item(), 0)  # summed over micro-batches and ranks; `Engine.step` counts the steps
        tally.mean("critic/clipped", clipped_N.sum().item(), len(clipped_N))

    def _values_N(self, microbatch: MicroBatch) -> Tensor:
        values_N, _ = self._engine(*microbatch.inputs, with_entropy=False)
        return values_N

    def _packed(self, sequences: Sequence[TrainingSequence]) -> list[MicroBatch]:
        """Micro-batches of this rank's sequences, as many as on every other rank, and at least one."""
        idle = idle_microbatch(self._engine.device)
        microbatches = make_microbatches(sequences, self._tokens_per_microbatch, self._engine.device)
        return pad_to_all_ranks(microbatches, idle) or [idle]

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and schedule, each rank its part."""
        self._engine.save(folder)

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote, as `Engine.load` does."""
        self._engine.reload()
        was_resharded = self._engine.load(folder)
        self._engine.offload()
        return was_resharded


@dataclass(frozen=True)
class PolicyAndCritic:
    """What a run with a critic learns. In a checkpoint, the critic's state is next to the policy's."""

    policy: Policy
    critic: Critic

    def save(self, folder: Path) -> None:
        self.policy.save(folder)
        self.critic.save(folder.with_name(FOLDER))

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote. Returns whether anything had to be resharded."""
        if not folder.with_name(FOLDER).is_dir():
            raise CheckpointError(
                f"{folder.parent} was written by a run without a critic. Start a new run with the critic in another "
                "run.dir; it can start from this run's model."
            )
        was_resharded = self.policy.load(folder)
        return self.critic.load(folder.with_name(FOLDER)) or was_resharded


@dataclass(frozen=True, eq=False)
class ValuedSequence(TrainingSequence):
    """A sequence with the critic's value before each response token, and the return that it should learn."""

    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()


def valued_minibatches(
    rollout: Rollout, selected_PG: Tensor, values: PerToken, kl: PerToken | None, algorithm: AlgorithmConfig
) -> list[list[ValuedSequence]]:
    """The selected responses of this rank's share of each minibatch; called on all ranks.

    `values` are the critic's for the rollout, `kl` is as in `rollout_advantages`.
    """
    advantages = critic_advantages(penalised_rewards(rollout, kl, algorithm), values, kl, algorithm)
    return [
        [
            ValuedSequence(
                sequence.prompt_ids,
                sequence.response_ids,
                values=tuple(values_T.tolist()),
                returns=tuple((values_T + advantages_T).tolist()),
            )
            for i in indices
            for sequence, values_T, advantages_T, is_selected in zip(
                make_sequences(rollout.groups[i]), values[i], advantages[i], selected_PG[i].tolist(), strict=True
            )
            if is_selected
        ]
        for indices in minibatch_groups(rollout, algorithm.num_minibatches)
    ]


def value_network(model: BaseModel, cluster: ClusterConfig) -> TokenLogprobs:
    """The weights of `model` with one value as the output, on the CPU; called on all ranks.

    Called like a policy's network, it returns values instead of log-probabilities.
    """
    network = load_network(model, cluster, temperature=1.0)
    layer = network.model.get_output_embeddings()
    network.model.set_output_embeddings(ValueHead(layer.in_features, layer.weight.dtype))
    return network


class ValueHead(nn.Linear):
    """An output layer with the value of each hidden state. It starts at 0: the first advantages have no baseline."""

    def __init__(self, num_features: int, dtype: torch.dtype) -> None:
        super().__init__(num_features, 1, dtype=dtype)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden_NH: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return super().forward(hidden_NH)[:, 0].float(), None


def _num_tokens(sequences: Sequence[TrainingSequence]) -> int:
    """The number of response tokens on all ranks; at least 1."""
    return max(1, sum(gather(sum(len(s.response_ids) for s in sequences))))


def _quality(sequences: Sequence[ValuedSequence]) -> Tally:
    """`critic/...` of the values before the update; called on all ranks."""
    values_N, returns_N = (
        torch.tensor([value for s in sequences for value in getattr(s, name)]) for name in ("values", "returns")
    )
    tally = Tally()
    tally.mean("critic/value", values_N.sum().item(), len(values_N))
    tally.mean("critic/return", returns_N.sum().item(), len(returns_N))
    explained = explained_variance(values_N, returns_N, gather)
    tally.mean("critic/explained_variance", 0.0 if math.isnan(explained) else explained, not math.isnan(explained))
    return tally
