"""The policy: its log-probabilities, its update by the objective, and the reference of a KL term."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from grpo_cli.algorithm.correction import MismatchMaxima, MismatchSums, sampler_correction, sampler_mismatch
from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.algorithm.loss import policy_loss
from grpo_cli.choices import KLPlacement
from grpo_cli.config.train import TrainConfig
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import tally_busy, tally_trained
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank
from grpo_cli.training.balance import balanced
from grpo_cli.training.batch import (
    MicroBatch,
    TrainingSequence,
    idle_microbatch,
    make_microbatches,
    make_sequences,
)
from grpo_cli.training.engine import Engine
from grpo_cli.training.lora import add_adapters, merged_weights, named_layers, own_parameters, without_adapters
from grpo_cli.training.network import load_network
from grpo_cli.types import ScoredGroup

NUM_COMPARED = 4  # sequences forwarded for the comparison with the sampler alone
TokenValues = Mapping[TrainingSequence, Tensor]  # one value for each response token of a sequence


class Policy:
    """The model that learns, its optimizer, and the frozen reference where the objective has a KL term."""

    def __init__(self, model: BaseModel, config: TrainConfig):
        self._algorithm = config.algorithm
        self.temperature = config.rollout.temperature
        self._correction = config.algorithm.sampler_correction.method_in(config.cluster.dtype)
        self._cluster = config.cluster
        steps_a_rollout = config.algorithm.num_minibatches * config.algorithm.num_epochs
        self._has_adapters = config.model.lora.rank > 0
        network = load_network(model, config.cluster, config.rollout.temperature)
        self._tokens_per_microbatch = config.cluster.tokens_per_microbatch if network.packs else 1
        if self._has_adapters:
            add_adapters(network.model, config.model.lora, config.seed)
        self._engine = Engine(network, config.optimizer, config.cluster, total_steps=config.steps * steps_a_rollout)
        self._has_reference = self._algorithm.beta > 0
        self._reference_may_differ = self._algorithm.reference.refresh_steps > 0  # from the base model
        self._reference = None  # where there is none, or it is the policy without its adapters
        if self._has_reference and not self._has_adapters:
            reference = load_network(model, config.cluster, config.rollout.temperature)
            self._reference = reference.requires_grad_(False).eval()
        if self._reference is not None and not self._cluster.offload_reference:
            self._reference.to(self._engine.device)

    @property
    def note(self) -> str | None:
        """What a user should know of how this model is trained."""
        if self._tokens_per_microbatch == self._cluster.tokens_per_microbatch:
            return None
        return (
            "This model's layers would mix sequences in one row: it is trained one sequence at a time, which is slower."
        )

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer holds for its next step."""
        return self._engine.lr

    def token_kl(self, groups: Sequence[ScoredGroup]) -> list[list[Tensor]]:
        """The (T,) KL to the reference of each token of each group's responses, for the reward; called on all ranks."""
        self._engine.reload()
        sequences = [make_sequences(group) for group in groups]
        microbatches = self._filled_up(self._packed([s for of_group in sequences for s in of_group]))
        policy = self._token_logprobs(self._engine, microbatches)
        reference = self._reference_logprobs(microbatches)
        estimator = self._algorithm.kl.estimator
        return [
            [kl_divergence(policy[s], reference[s], estimator=estimator).cpu() for s in of_group]
            for of_group in sequences
        ]

    def negative_log_likelihood(self, sequences: Sequence[TrainingSequence]) -> tuple[float, int]:
        """The sum of -log p over the tokens of these responses, and their number; called on all ranks."""
        self._engine.reload()
        values = self._token_logprobs(self._engine, self._filled_up(self._packed(sequences)))
        return -sum(values[s].sum().item() for s in sequences), sum(len(s.response_ids) for s in sequences)

    @torch.no_grad()
    def mismatch(self, sequences: Sequence[TrainingSequence]) -> Tally:
        """The `sampler/...` metrics of sampled responses; called on all ranks."""
        self._engine.reload()
        tally = Tally()
        for microbatch in self._filled_up(self._packed(sequences)):
            logprobs_N, _ = self._engine(*microbatch.inputs, with_entropy=False)
            compared = (microbatch.scatter(logprobs_N), microbatch.sampler_logprobs_BT, microbatch.mask_BT)
            _tally_mismatch(tally, *sampler_mismatch(*compared))
        return tally

    def update(self, minibatches: Sequence[Sequence[TrainingSequence]]) -> Tally:
        """Take one optimizer step a minibatch and epoch; called on all ranks.

        `minibatches` holds this rank's sequences; the weights in them already divide by what the objective says
        over all ranks. Splitting a minibatch into micro-batches changes nothing but rounding.
        """
        self._engine.reload()
        batches = [self._microbatches(minibatch) for minibatch in minibatches]
        everything = [microbatch for batch in batches for microbatch in batch]
        single_step = len(minibatches) * self._algorithm.num_epochs == 1
        # With one step a rollout the policy is still the one that sampled: its log-probabilities are those of the
        # update's own forward pass.
        old = None if single_step else self._token_logprobs(self._engine, everything)
        reference = self._reference_logprobs(everything) if self._has_reference else None
        tally = Tally()
        # Of all responses: those that are not forwarded have no advantage, and nothing to clip.
        num_tokens = sum(len(s.response_ids) for minibatch in minibatches for s in minibatch)
        for name in ("policy/clip_low", "policy/clip_high"):
            tally.mean(name, 0, num_tokens * self._algorithm.num_epochs)
        for epoch in range(self._algorithm.num_epochs):
            for batch in batches:
                tally.mean("policy/lr", self.lr, 1)
                for microbatch in batch:
                    self._accumulate(microbatch, old, reference, tally, first_epoch=epoch == 0)
                self._engine.step(tally)
        sequences = [s for microbatch in everything for s in microbatch.sequences]
        lengths = ((len(s.prompt_ids), len(s.response_ids)) for s in sequences)
        tally_trained(tally, lengths, self._algorithm.num_epochs)
        tally_busy(tally, rank(), sum(s.length for s in sequences))  # what it computes is in proportion to its tokens
        self._maybe_refresh_reference(num_steps=len(batches) * self._algorithm.num_epochs)
        return tally

    def _microbatches(self, minibatch: Sequence[TrainingSequence]) -> list[MicroBatch]:
        """Only what has a gradient is forwarded, an equal share on each rank; where nothing has, a few sequences, to
        compare with the sampler.
        """
        teaching = [s for s in minibatch if s.weight != 0 and (self._has_reference or s.has_advantage)]
        if not any(gather(bool(teaching))):
            teaching = [replace(s, weight=0.0) for s in sorted(minibatch, key=lambda s: s.length)[:NUM_COMPARED]]
        return self._filled_up(self._packed(balanced(teaching)))

    def _packed(self, sequences: Sequence[TrainingSequence]) -> list[MicroBatch]:
        return make_microbatches(sequences, self._tokens_per_microbatch, self._engine.device)

    def _filled_up(self, microbatches: list[MicroBatch]) -> list[MicroBatch]:
        """As many on every rank: else ZeRO-3, which gathers weights in each forward pass, would wait for ever."""
        missing = max(gather(len(microbatches))) - len(microbatches)
        return microbatches + [idle_microbatch(self._engine.device)] * missing

    def _accumulate(
        self,
        microbatch: MicroBatch,
        old: TokenValues | None,
        reference: TokenValues | None,
        tally: Tally,
        *,
        first_epoch: bool,
    ) -> None:
        algorithm, mask_BT, sampler_BT = self._algorithm, microbatch.mask_BT, microbatch.sampler_logprobs_BT
        # Only part of a rollout is forwarded, so `rollout_tally` takes its entropy from the samples instead.
        logprobs_N, entropy_N = self._engine(*microbatch.inputs, with_entropy=sampler_BT is None)
        logprobs_BT = microbatch.scatter(logprobs_N)
        old_BT = logprobs_BT.detach() if old is None else _place(microbatch, old)
        reference_BT = None if reference is None else _place(microbatch, reference)
        loss, stats = policy_loss(
            logprobs_BT,
            old_BT,
            microbatch.advantages_BT,
            microbatch.weights_B,
            mask_BT,
            surrogate=algorithm.surrogate,
            level=algorithm.ratio.level,
            epsilon=algorithm.epsilon,
            epsilon_high=algorithm.epsilon_high,
            dual_clip=algorithm.dual_clip,
            beta=algorithm.beta if algorithm.kl.placement == KLPlacement.loss else 0.0,
            ref_logprobs_BT=reference_BT,
            kl_estimator=algorithm.kl.estimator,
            correction_BT=None
            if sampler_BT is None
            else sampler_correction(
                old_BT,
                sampler_BT,
                mask_BT,
                method=self._correction,
                cap=algorithm.sampler_correction.cap,
                floor=algorithm.sampler_correction.floor,
            ),
        )
        self._engine.backward(loss)
        num_tokens = stats.num_tokens.item()
        tally.mean("policy/loss", loss.item(), 0)  # a sum over micro-batches and ranks; the step counts the steps
        if entropy_N is not None:
            tally.mean("policy/entropy", entropy_N.sum().item(), num_tokens)
        tally.mean("policy/clip_low", stats.clip_low.item(), 0)
        tally.mean("policy/clip_high", stats.clip_high.item(), 0)
        if reference is not None:
            tally.mean("policy/kl_ref", stats.kl_ref.item(), num_tokens)
        if first_epoch and sampler_BT is not None:
            _tally_mismatch(tally, *sampler_mismatch(old_BT, sampler_BT, mask_BT))

    @torch.no_grad()
    def _token_logprobs(self, network: torch.nn.Module, microbatches: Sequence[MicroBatch]) -> TokenValues:
        values = {}
        for microbatch in microbatches:
            logprobs_N, _ = network(*microbatch.inputs, with_entropy=False)
            lengths = [len(s.response_ids) for s in microbatch.sequences]
            values.update(zip(microbatch.sequences, logprobs_N.split(lengths), strict=True) if lengths else {})
        return values

    def _reference_logprobs(self, microbatches: Sequence[MicroBatch]) -> TokenValues:
        if self._has_adapters:
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
        """Make room for vLLM where the cluster says so; what was moved is brought back as soon as it is needed. Called
        on all ranks.
        """
        self._engine.offload()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name in a model's files, tensor) of every weight, adapters merged, module by module, so that no rank ever
        holds a second whole copy. A tied lm_head comes under its own name too.

        Every rank must exhaust the iterator, in the same order.
        """
        network = self._engine.network.model
        for weights in self._weights_by_module():
            # Experts that transformers holds as one tensor are separate in the files, which is how vLLM loads them.
            for name, weight in revert_weight_conversion(network, weights).items():
                # vLLM may hold a weight until its whole layer has come; a shard is gone by then.
                yield name, weight.clone() if self._engine.is_sharded else weight

    def _weights_by_module(self) -> Iterator[dict[str, Tensor]]:
        """{name in the network: whole tensor} of one module after another, each valid until the next is asked for."""
        self._engine.reload()
        for module_name, module in named_layers(self._engine.network.model):
            with self._engine.whole(own_parameters(module)):
                yield {f"{module_name}.{name}": weight for name, weight in merged_weights(module).items()}

    def save(self, folder: Path) -> None:
        """Write weights (of adapters, those alone), optimizer and schedule, each rank its part, and a reference that
        is not the base model.
        """
        self._engine.save(folder)
        if self._reference is not None and self._reference_may_differ and rank() == 0:
            torch.save(self._reference.state_dict(), folder / "reference.pt")

    def load(self, folder: Path) -> bool:
        """Bring back what `save` wrote, as `Engine.load` does. With beta at 0 a reference that was saved has no use."""
        was_shared_out = self._engine.load(folder)
        if self._reference is not None and (folder / "reference.pt").is_file():
            self._reference_may_differ = True
            self._reference.load_state_dict(
                torch.load(folder / "reference.pt", map_location=self._engine.device, weights_only=True)
            )
        return was_shared_out


def _place(microbatch: MicroBatch, values: TokenValues) -> Tensor:
    parts = [values[s] for s in microbatch.sequences]
    return microbatch.scatter(torch.cat(parts) if parts else [])


def _tally_mismatch(tally: Tally, sums: MismatchSums, maxima: MismatchMaxima) -> None:
    num_tokens = sums.num_tokens.item()
    tally.mean("sampler/logprob_diff_mean", sums.logprob_diff.item(), num_tokens)
    tally.mean("sampler/prob_diff_mean", sums.prob_diff.item(), num_tokens)
    tally.mean("sampler/kl", sums.kl.item(), num_tokens)
    tally.mean("sampler/ratio_mean", sums.ratio.item(), num_tokens)
    tally.max("sampler/logprob_diff_max", maxima.logprob_diff.item())
    tally.max("sampler/prob_diff_max", maxima.prob_diff.item())
    tally.max("sampler/ratio_max", maxima.ratio.item())
