"""The policy: its log-probabilities, its update by the objective, and the reference of a KL term."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import LoraConfig
from grpo_cli.config.optimizer import OptimizerConfig
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import tally_busy, tally_trained
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank
from grpo_cli.training.balance import balanced, pad_to_all_ranks
from grpo_cli.training.batch import (
    MicroBatch,
    TokenValues,
    TrainingSequence,
    idle_microbatch,
    make_microbatches,
    make_sequences,
)
from grpo_cli.training.engine import Engine
from grpo_cli.training.entropy_bonus import EntropyBonus
from grpo_cli.training.lora import add_adapters, merged_weights, named_layers, own_parameters, without_adapters
from grpo_cli.training.mismatch import tally_mismatch
from grpo_cli.training.network import load_network
from grpo_cli.training.objective import microbatch_loss
from grpo_cli.training.top_entropy import with_top_entropy
from grpo_cli.types import ScoredGroup

NUM_COMPARED = 4  # sequences forwarded only for the comparison with the sampler


class Policy:
    """The model in training, its optimizer, and the frozen reference if the objective has a KL term."""

    def __init__(
        self,
        model: BaseModel,
        algorithm: AlgorithmConfig,
        optimizer: OptimizerConfig,
        cluster: ClusterConfig,
        lora: LoraConfig,
        *,
        teacher: BaseModel | None = None,
        temperature: float,
        num_updates: int,
        seed: int,
    ) -> None:
        """`num_updates` is the number of calls of `update` in the whole run; the learning-rate schedule needs it.

        `temperature` is the sampling temperature of responses. `seed` initialises new adapters. `teacher` is the
        reference of the KL term; without it, `model` is.
        """
        self._algorithm = algorithm
        self._entropy_bonus = EntropyBonus(algorithm.entropy_bonus)
        self.temperature = temperature
        self._cluster = cluster
        self._has_adapters = lora.rank > 0
        network = load_network(model, cluster, temperature)
        packs = network.packs
        if self._has_adapters:
            add_adapters(network.model, lora, seed)
        steps_per_update = algorithm.num_minibatches * algorithm.num_epochs
        self._engine = Engine(network, optimizer, cluster, total_steps=num_updates * steps_per_update, name="policy")
        self._has_reference = self._algorithm.beta > 0
        self._reference_may_differ = self._algorithm.reference.refresh_steps > 0  # from the base model
        self._reference: Any = None  # also with adapters: the reference is then the policy without them
        if self._has_reference and (teacher is not None or not self._has_adapters):
            reference = load_network(teacher or model, cluster, temperature)
            packs = packs and reference.packs
            self._reference = reference.requires_grad_(False).eval()
        self._tokens_per_microbatch = cluster.tokens_per_microbatch if packs else 1
        self._has_teacher = teacher is not None
        if self._reference is not None and not self._cluster.offload_reference:
            self._reference.to(self._engine.device)

    @property
    def note(self) -> str | None:
        """A message for the user about how this model is trained, or None."""
        if self._tokens_per_microbatch == self._cluster.tokens_per_microbatch:
            return None
        return (
            "This model's layers would mix packed sequences, so it is trained one sequence at a time, which is slower."
        )

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer holds for its next step."""
        return self._engine.lr

    def token_kl(self, groups: Sequence[ScoredGroup]) -> list[list[Tensor]]:
        """The (T,) KL to the reference of each response of each group, for the reward; called on all ranks."""
        self._engine.reload()
        sequences = [make_sequences(group) for group in groups]
        microbatches = self._packed([s for of_group in sequences for s in of_group])
        policy = self._token_logprobs(self._engine, microbatches)
        reference = self._reference_logprobs(microbatches)
        estimator = self._algorithm.kl.estimator
        return [
            [kl_divergence(policy[s], reference[s], estimator=estimator).cpu() for s in of_group]
            for of_group in sequences
        ]

    def negative_log_likelihood(self, sequences: Sequence[TrainingSequence]) -> tuple[float, int]:
        """The sum of -log p over the tokens of these responses, and the number of tokens; called on all ranks."""
        self._engine.reload()
        values = self._token_logprobs(self._engine, self._packed(sequences))
        return -sum(values[s].sum().item() for s in sequences), sum(len(s.response_ids) for s in sequences)

    @torch.no_grad()
    def forwarded(
        self, sequences: Sequence[TrainingSequence], *, with_entropy: bool = False
    ) -> Iterator[tuple[MicroBatch, Tensor, Tensor | None]]:
        """Micro-batches of these responses, with the (N,) log-probabilities and entropies of their tokens.

        Called on all ranks. Every rank must exhaust the iterator.
        """
        self._engine.reload()
        for microbatch in self._packed(sequences):
            yield microbatch, *self._engine(*microbatch.inputs, with_entropy=with_entropy)

    def update(self, minibatches: Sequence[Sequence[TrainingSequence]]) -> Tally:
        """Take one optimizer step per minibatch and epoch; called on all ranks.

        `minibatches` holds this rank's sequences. Their weights already contain the objective's denominator over all
        ranks, so splitting a minibatch into micro-batches changes only rounding.
        """
        self._engine.reload()
        if self._algorithm.top_entropy < 1:
            share = self._algorithm.top_entropy
            minibatches = [with_top_entropy(minibatch, self.forwarded, share) for minibatch in minibatches]
        batches = [self._microbatches(minibatch) for minibatch in minibatches]
        everything = [microbatch for batch in batches for microbatch in batch]
        single_step = len(minibatches) * self._algorithm.num_epochs == 1
        # With one step per rollout, the policy is still the one that sampled. So the update's own forward pass gives
        # the old log-probabilities.
        old = None if single_step else self._token_logprobs(self._engine, everything)
        reference = self._reference_logprobs(everything) if self._has_reference else None
        tally = Tally()
        bonus = self._entropy_bonus.next_weight([s for minibatch in minibatches for s in minibatch])
        if self._entropy_bonus.is_on:
            tally.mean("policy/entropy_bonus", bonus, 1)
        # Over the tokens of all responses: those that are not forwarded have no advantage, so they are not clipped.
        num_tokens = sum(len(s.response_ids) for minibatch in minibatches for s in minibatch)
        for name in ("policy/clip_low", "policy/clip_high"):
            tally.mean(name, 0, num_tokens * self._algorithm.num_epochs)
        for epoch in range(self._algorithm.num_epochs):
            for batch in batches:
                tally.mean("policy/lr", self.lr, 1)
                for microbatch in batch:
                    self._accumulate(microbatch, old, reference, bonus, tally, first_epoch=epoch == 0)
                self._engine.step(tally)
        sequences = [s for microbatch in everything for s in microbatch.sequences]
        lengths = ((len(s.prompt_ids), len(s.response_ids)) for s in sequences)
        tally_trained(tally, lengths, self._algorithm.num_epochs)
        tally_busy(tally, rank(), sum(s.length for s in sequences))  # work is proportional to tokens
        self._maybe_refresh_reference(num_steps=len(batches) * self._algorithm.num_epochs)
        return tally

    def _microbatches(self, minibatch: Sequence[TrainingSequence]) -> list[MicroBatch]:
        """This rank's equal share of the sequences that have a gradient, as micro-batches.

        If no rank has one, a few short sequences of weight 0, so that vLLM and trainer can still be compared.
        """
        has_more = self._has_reference or self._entropy_bonus.is_on
        with_gradient = [s for s in minibatch if s.has_weight and (has_more or s.has_advantage)]
        if not any(gather(bool(with_gradient))):
            with_gradient = [replace(s, weight=0.0) for s in sorted(minibatch, key=lambda s: s.length)[:NUM_COMPARED]]
        return self._packed(balanced(with_gradient))

    def _packed(self, sequences: Sequence[TrainingSequence]) -> list[MicroBatch]:
        """Micro-batches of this rank's sequences, as many as on every other rank."""
        microbatches = make_microbatches(sequences, self._tokens_per_microbatch, self._engine.device)
        return pad_to_all_ranks(microbatches, idle_microbatch(self._engine.device))

    def _accumulate(
        self,
        microbatch: MicroBatch,
        old: TokenValues | None,
        reference: TokenValues | None,
        bonus: float,
        tally: Tally,
        *,
        first_epoch: bool,
    ) -> None:
        algorithm, sampler_BT = self._algorithm, microbatch.sampler_logprobs_BT
        # Only part of a rollout is forwarded, so its entropy is estimated from the samples, in `rollout_tally`.
        logprobs_N, entropy_N = self._engine(*microbatch.inputs, with_entropy=sampler_BT is None or bonus > 0)
        logprobs_BT = microbatch.scatter(logprobs_N)
        old_BT = logprobs_BT.detach() if old is None else microbatch.token_values_BT(old)
        reference_BT = None if reference is None else microbatch.token_values_BT(reference)
        loss, stats = microbatch_loss(logprobs_BT, old_BT, reference_BT, microbatch, algorithm, self._cluster.dtype)
        if entropy_N is not None and bonus > 0:
            loss = loss - bonus * (microbatch.weights_BT * microbatch.scatter(entropy_N)).sum()
        self._engine.backward(loss)
        num_tokens = stats.num_tokens.item()
        tally.mean("policy/loss", loss.item(), 0)  # summed over micro-batches and ranks; `Engine.step` counts the steps
        if entropy_N is not None and sampler_BT is None:
            tally.mean("policy/entropy", entropy_N.sum().item(), num_tokens)
        tally.mean("policy/clip_low", stats.clip_low.item(), 0)
        tally.mean("policy/clip_high", stats.clip_high.item(), 0)
        if reference is not None:
            name = "policy/kl_teacher" if self._has_teacher else "policy/kl_ref"
            tally.mean(name, stats.kl_ref.item(), num_tokens)
        if first_epoch and sampler_BT is not None:
            tally_mismatch(tally, old_BT, microbatch)

    @torch.no_grad()
    def _token_logprobs(self, network: torch.nn.Module, microbatches: Sequence[MicroBatch]) -> TokenValues:
        values: dict[TrainingSequence, Tensor] = {}
        for microbatch in microbatches:
            logprobs_N, _ = network(*microbatch.inputs, with_entropy=False)
            values |= microbatch.by_sequence(logprobs_N)
        return values

    def _reference_logprobs(self, microbatches: Sequence[MicroBatch]) -> TokenValues:
        if self._reference is None:
            with without_adapters(self._engine.network):
                return self._token_logprobs(self._engine, microbatches)
        self._reference.to(self._engine.device)
        values = self._token_logprobs(self._reference, microbatches)
        if self._cluster.offload_reference:
            self._reference.to("cpu")
        return values

    def _maybe_refresh_reference(self, num_steps: int) -> None:
        """Copy the policy into the reference once `refresh_steps` optimizer steps have passed since the last time."""
        every = self._algorithm.reference.refresh_steps
        if self._reference is None or not every:
            return
        done = self._engine.num_steps
        if done // every > (done - num_steps) // every:
            for weights in self._weights_by_module():
                for name, weight in weights.items():
                    self._reference.model.get_parameter(name).data.copy_(weight)

    def offload(self) -> None:
        """Move the training state to CPU memory if the cluster settings say so; called on all ranks.

        Every method that needs the state moves it back first.
        """
        self._engine.offload()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name in a model's files, tensor) of every weight, with adapters merged.

        It goes module by module, so that no rank holds a second whole copy. A tied lm_head is also yielded under its
        own name. Every rank must exhaust the iterator.
        """
        network = self._engine.network.model
        for weights in self._weights_by_module():
            # transformers stacks experts in one tensor; the files, and so vLLM, have them separately.
            for name, weight in revert_weight_conversion(network, weights).items():
                # vLLM may keep a weight until it has the whole layer. A gathered one is freed earlier, so copy it.
                yield name, weight.clone() if self._engine.is_sharded else weight

    def _weights_by_module(self) -> Iterator[dict[str, Tensor]]:
        """Yield {name in the network: whole tensor} for each module; valid until the next one is yielded."""
        self._engine.reload()
        for module_name, module in named_layers(self._engine.network.model):
            with self._engine.whole(own_parameters(module)):
                yield {f"{module_name}.{name}": weight for name, weight in merged_weights(module).items()}

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and schedule, each rank its part, and the reference if it is not the base model.

        With adapters, only their weights are written.
        """
        self._engine.save(folder)
        self._entropy_bonus.save(folder)
        if self._reference is not None and self._reference_may_differ and rank() == 0:
            torch.save(self._reference.state_dict(), folder / "reference.pt")

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote, as `Engine.load` does. With beta=0 or a teacher, a saved reference is ignored."""
        was_resharded = self._engine.load(folder)
        self._entropy_bonus.load(folder)
        if self._reference is not None and not self._has_teacher and (folder / "reference.pt").is_file():
            self._reference_may_differ = True
            self._reference.load_state_dict(
                torch.load(folder / "reference.pt", map_location=self._engine.device, weights_only=True)
            )
        return was_resharded
