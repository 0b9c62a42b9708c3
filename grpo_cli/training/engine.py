"""The policy under DeepSpeed. The only module that imports deepspeed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import deepspeed
import torch
from deepspeed.utils import (
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo_cli.algorithm.correction import MismatchMaxima, MismatchSums, sampler_correction, sampler_mismatch
from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.algorithm.loss import policy_loss
from grpo_cli.config.schema import (
    ClusterConfig,
    Device,
    DType,
    KLPlacement,
    OptimizerConfig,
    Schedule,
    TrainConfig,
)
from grpo_cli.errors import TrainingError
from grpo_cli.metrics.metrics import Tally
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.training.batch import (
    MicroBatch,
    TrainingSequence,
    idle_microbatch,
    make_microbatches,
    make_sequences,
    padding_fraction,
)
from grpo_cli.training.logprobs import TokenLogprobs
from grpo_cli.training.lora import add_adapters, merged_weights, named_layers, own_parameters, without_adapters
from grpo_cli.training.shards import MOMENTS, Layout, SavedShards
from grpo_cli.types import ScoredGroup

DTYPES = {DType.fp32: torch.float32, DType.bf16: torch.bfloat16}
NUM_COMPARED = 4  # sequences forwarded for the comparison with the sampler alone
MAX_SKIPPED_STEPS = 3
TokenValues = Mapping[TrainingSequence, Tensor]  # one value for each response token of a sequence


def init_distributed(cluster: ClusterConfig) -> None:
    """Join the ranks. It comes before the vLLM engine, which takes part in this process group."""
    # DeepSpeed would compile its shared-memory collectives for CPU ranks first: a minute, and a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo" if cluster.device == Device.cpu else "nccl", verbose=False)


class Policy:
    """The model that learns, its optimizer, and the frozen reference where the objective has a KL term."""

    def __init__(self, model: BaseModel, config: TrainConfig):
        self._algorithm = config.algorithm
        self._rollout = config.rollout
        self._cluster = config.cluster
        self._pad_id = model.tokenizer.pad_token_id or 0
        steps_a_rollout = config.algorithm.num_minibatches * config.algorithm.num_epochs
        self._has_adapters = config.model.lora.rank > 0
        network = self._load(model)
        if self._has_adapters:
            add_adapters(network.model, config.model.lora, config.seed)
        optimizer = torch.optim.AdamW(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            lr=config.optimizer.lr,
            betas=tuple(config.optimizer.betas),
            eps=config.optimizer.eps,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        schedule = _schedule(config.optimizer, total_steps=config.steps * steps_a_rollout)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=network,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, schedule),
            config=_deepspeed_config(config),
        )
        _keep_grad_norm(self._engine)
        self._is_offloaded = False
        self._skipped_in_a_row = 0
        self._has_reference = self._algorithm.beta > 0
        self._reference = None  # where there is none, or it is the policy without its adapters
        if self._has_reference and not self._has_adapters:
            self._reference = self._load(model).requires_grad_(False).eval()
        if self._reference is not None and not self._cluster.offload_reference:
            self._reference.to(self._engine.device)

    def _load(self, model: BaseModel) -> TokenLogprobs:
        network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=DTYPES[self._cluster.dtype])
        if self._cluster.gradient_checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
            network.train()  # in evaluation mode nothing would be checkpointed
        return TokenLogprobs(network, temperature=self._rollout.temperature, vocab_size=model.vocab_size)

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer holds for its next step."""
        return self._optimizer.param_groups[0]["lr"]

    def response_kl(self, groups: Sequence[ScoredGroup]) -> Tensor:
        """The (P, G) KL of each whole response to the reference, for the reward; called on all ranks."""
        self._reload()
        sequences = [sequence for group in groups for sequence in make_sequences(group)]
        microbatches = self._filled_up(self._pad_into_microbatches(sequences))
        policy = self._token_logprobs(self._engine, microbatches)
        reference = self._reference_logprobs(microbatches)
        estimator = self._algorithm.kl.estimator
        kl_B = [kl_divergence(policy[s], reference[s], estimator=estimator).sum().item() for s in sequences]
        return torch.tensor(kl_B, dtype=torch.float64).view(len(groups), -1)

    def update(self, minibatches: Sequence[Sequence[TrainingSequence]]) -> Tally:
        """Take one optimizer step a minibatch and epoch; called on all ranks.

        `minibatches` holds this rank's sequences; the weights in them already divide by what the objective says
        over all ranks. Splitting a minibatch into micro-batches changes nothing but rounding.
        """
        self._reload()
        batches = [self._microbatches(minibatch) for minibatch in minibatches]
        everything = [microbatch for batch in batches for microbatch in batch]
        single_step = len(minibatches) * self._algorithm.num_epochs == 1
        # With one step a rollout the policy is still the one that sampled: its log-probabilities are those of the
        # update's own forward pass.
        old = None if single_step else self._token_logprobs(self._engine, everything)
        reference = self._reference_logprobs(everything) if self._has_reference else None
        tally = Tally()
        for epoch in range(self._algorithm.num_epochs):
            for batch in batches:
                tally.mean("policy/lr", self.lr, 1)
                for microbatch in batch:
                    self._accumulate(microbatch, old, reference, tally, first_epoch=epoch == 0)
                self._step(tally)
        padded, positions = padding_fraction(everything)
        tally.mean("perf/padding_fraction", padded, positions)
        self._maybe_refresh_reference(num_steps=len(batches) * self._algorithm.num_epochs)
        return tally

    def _microbatches(self, minibatch: Sequence[TrainingSequence]) -> list[MicroBatch]:
        """Only what has a gradient is forwarded; where nothing has, a few sequences, to compare with the sampler."""
        teaching = [s for s in minibatch if s.weight != 0 and (self._has_reference or s.advantage != 0)]
        if not any(gather(bool(teaching))):
            teaching = [replace(s, weight=0.0) for s in sorted(minibatch, key=lambda s: s.length)[:NUM_COMPARED]]
        return self._filled_up(self._pad_into_microbatches(teaching))

    def _pad_into_microbatches(self, sequences: Sequence[TrainingSequence]) -> list[MicroBatch]:
        return make_microbatches(sequences, self._cluster.tokens_per_microbatch, self._pad_id, self._engine.device)

    def _filled_up(self, microbatches: list[MicroBatch]) -> list[MicroBatch]:
        """As many on every rank: else ZeRO-3, which gathers weights in each forward pass, would wait for ever."""
        missing = max(gather(len(microbatches))) - len(microbatches)
        return microbatches + [idle_microbatch(self._pad_id, self._engine.device)] * missing

    def _accumulate(
        self,
        microbatch: MicroBatch,
        old: TokenValues | None,
        reference: TokenValues | None,
        tally: Tally,
        *,
        first_epoch: bool,
    ) -> None:
        algorithm, mask_BT = self._algorithm, microbatch.mask_BT
        logprobs_N, entropy_N = self._engine(microbatch.tokens_BS, mask_BT)
        logprobs_BT = microbatch.scatter(logprobs_N)
        old_BT = logprobs_BT.detach() if old is None else _place(microbatch, old)
        reference_BT = None if reference is None else _place(microbatch, reference)
        loss, stats = policy_loss(
            logprobs_BT,
            old_BT,
            microbatch.advantages_B,
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
            correction_BT=sampler_correction(
                old_BT,
                microbatch.sampler_logprobs_BT,
                mask_BT,
                method=algorithm.sampler_correction.method,
                cap=algorithm.sampler_correction.cap,
            ),
        )
        # DeepSpeed averages gradients over ranks; the weights hold the global denominator, so that is undone here.
        self._engine.backward(loss * world_size(), scale_wrt_gas=False)
        num_tokens = stats.num_tokens.item()
        tally.mean("policy/loss", loss.item(), 0)  # a sum over micro-batches and ranks; `_step` counts the steps
        tally.mean("policy/entropy", entropy_N.sum().item(), num_tokens)
        tally.mean("policy/clip_low", stats.clip_low.item(), num_tokens)
        tally.mean("policy/clip_high", stats.clip_high.item(), num_tokens)
        if reference is not None:
            tally.mean("policy/kl_ref", stats.kl_ref.item(), num_tokens)
        if first_epoch:
            _tally_mismatch(tally, *sampler_mismatch(old_BT, microbatch.sampler_logprobs_BT, mask_BT))

    def _step(self, tally: Tally) -> None:
        """One optimizer step, left out where the gradient is not finite: a few in a row end the run."""
        self._engine.step()
        tally.mean("policy/loss", 0.0, 1 / world_size())
        norm = float(self._engine.get_global_grad_norm())
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
            tally.mean("policy/grad_norm", norm, 1)
            tally.sum("policy/skipped_steps", 0)
            return
        self._skipped_in_a_row += 1
        tally.sum("policy/skipped_steps", 1 / world_size())  # every rank sees it
        if self._skipped_in_a_row == MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"The gradient was not finite in {MAX_SKIPPED_STEPS} optimizer steps in a row. The last checkpoint is "
                "kept. Go on from it with a lower optimizer.lr, or with cluster.dtype=fp32."
            )

    @torch.no_grad()
    def _token_logprobs(self, network: torch.nn.Module, microbatches: Sequence[MicroBatch]) -> TokenValues:
        values = {}
        for microbatch in microbatches:
            logprobs_N, _ = network(microbatch.tokens_BS, microbatch.mask_BT)
            lengths = [len(s.response_ids) for s in microbatch.sequences]
            values.update(zip(microbatch.sequences, logprobs_N.split(lengths), strict=True) if lengths else {})
        return values

    def _reference_logprobs(self, microbatches: Sequence[MicroBatch]) -> TokenValues:
        if self._has_adapters:
            with without_adapters(self._engine.module):
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
        done = self._engine.global_steps
        if done // every > (done - num_steps) // every:
            for name, weight in self.named_weights():
                self._reference.model.get_parameter(name).data.copy_(weight)

    def offload(self) -> None:
        """Move what the trainer holds to CPU memory while vLLM generates, where the cluster says so; it is brought back
        as soon as it is needed. Called on all ranks.
        """
        if self._cluster.offload_during_rollout and not self._is_offloaded:
            self._engine.offload_states()
            deepspeed.get_accelerator().empty_cache()
            self._is_offloaded = True

    def _reload(self) -> None:
        if self._is_offloaded:
            self._engine.reload_states()
            self._is_offloaded = False

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, tensor) of every weight, adapters merged, module by module, so that no rank ever holds a
        second whole copy. A tied lm_head comes under its own name too: vLLM keeps a packed copy of it on a CPU.

        Every rank must exhaust the iterator, in the same order.
        """
        self._reload()
        sharded = self._cluster.zero_stage == 3
        for module_name, module in named_layers(self._engine.module.model):
            parameters = own_parameters(module)
            with deepspeed.zero.GatheredParameters(parameters, enabled=sharded and bool(parameters)):
                for name, weight in merged_weights(module).items():
                    # vLLM may hold a weight until its whole layer has come; a shard is gone by then.
                    yield f"{module_name}.{name}", weight.clone() if sharded else weight

    def save(self, folder: Path) -> None:
        """Write weights (of adapters, those alone), optimizer and schedule, each rank its part, and a reference that
        is not the base model.
        """
        was_offloaded = self._is_offloaded
        self._reload()
        self._engine.save_checkpoint(
            str(folder.parent),
            tag=folder.name,
            client_state={"skipped_in_a_row": self._skipped_in_a_row},
            save_latest=False,
            exclude_frozen_parameters=self._has_adapters,
        )
        if self._reference is not None and self._algorithm.reference.refresh_steps and rank() == 0:
            torch.save(self._reference.state_dict(), folder / "reference.pt")
        if was_offloaded:
            self.offload()

    def load(self, folder: Path) -> bool:
        """Bring back what `save` wrote, and say whether it had to be shared out anew: it was written on another number
        of ranks, at another ZeRO stage or in another dtype. Called on all ranks.

        Raises CheckpointError where it is the state of another model.
        """
        saved = SavedShards(folder)
        shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in self._trained().items()}  # ds_shape: of ZeRO-3
        saved.check_same_model(shapes, known=self._engine.module.state_dict().keys())
        layout = Layout(world_size(), self._cluster.zero_stage, self._cluster.dtype == DType.bf16)
        if saved.layout == layout:
            strict = not self._has_adapters  # the base model's weights are not in it
            self._engine.load_checkpoint(str(folder.parent), tag=folder.name, load_module_strict=strict)
        else:
            self._share_out(saved)
        self._skipped_in_a_row = saved.model_states["skipped_in_a_row"]
        if (folder / "reference.pt").is_file():
            self._reference.load_state_dict(torch.load(folder / "reference.pt", map_location=self._engine.device))
        return saved.layout != layout

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._engine.module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _share_out(self, saved: SavedShards) -> None:
        """Take over a training state of another layout, one parameter at a time."""
        trained = self._trained()
        optimizer = saved.optimizer(list(trained))
        self._optimizer.param_groups[0].update(optimizer.settings)
        if self._cluster.zero_stage and optimizer.step is not None:
            self._begin_moments(optimizer.step)
        for name, parameter in trained.items():
            weight, *moments = (tensor.to(self._engine.device) for tensor in optimizer.tensors(name))
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self._cluster.zero_stage == 3):
                parameter.copy_(weight)
            if self._cluster.zero_stage == 3:
                safe_set_local_fp32_param(parameter, _own_part(weight))
                for key, moment in zip(MOMENTS, moments, strict=False):
                    safe_set_local_optimizer_state(parameter, _own_part(moment), key)
            elif self._cluster.zero_stage:
                safe_set_full_fp32_param(parameter, weight)
                for key, moment in zip(MOMENTS, moments, strict=False):
                    safe_set_full_optimizer_state(parameter, moment, key)
            elif moments:
                step = optimizer.step.to(parameter.device, copy=True)
                self._optimizer.state[parameter] = {"step": step, **dict(zip(MOMENTS, moments, strict=True))}
        self._engine.lr_scheduler.load_state_dict(saved.model_states["lr_scheduler"])
        self._engine.global_steps = saved.model_states["global_steps"]
        self._engine.skipped_steps = saved.model_states["skipped_steps"]

    def _begin_moments(self, step: Tensor) -> None:
        """Give ZeRO's flat tensors the state that torch's AdamW makes in its first step."""
        zero = self._optimizer
        is_stage_3 = self._cluster.zero_stage == 3
        for flat in zero.fp32_partitioned_groups_flat if is_stage_3 else zero.single_partition_of_fp32_groups:
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            zero.optimizer.state[flat] = {"step": step.to(flat.device, copy=True), **moments}
        if not is_stage_3:
            zero._lazy_init_hp_params_optimizer_state()


def consolidated_weights(folder: Path) -> dict[str, Tensor]:
    """The (Hugging Face name, tensor) of every weight that `Policy.save` wrote, of any ZeRO stage and any number of
    ranks; needs no process group and no GPU. ZeRO 1 to 3 give the fp32 master weights. Of a run with adapters they
    are the adapters', under peft's names.
    """
    if any(folder.glob("*_optim_states.pt")):
        weights = get_fp32_state_dict_from_zero_checkpoint(str(folder.parent), tag=folder.name)
    else:
        (states,) = folder.glob("mp_rank_*_model_states.pt")
        weights = torch.load(states, map_location="cpu", weights_only=False)["module"]
    return {name.removeprefix("model."): weight for name, weight in weights.items()}


def _own_part(tensor: Tensor) -> Tensor:
    """What ZeRO-3 keeps of it on this rank: one of equal parts, the last filled up with zeros."""
    size = math.ceil(tensor.numel() / world_size())
    filled_up = torch.nn.functional.pad(tensor.flatten(), (0, size * world_size() - tensor.numel()))
    return filled_up.narrow(0, rank() * size, size)


def _place(microbatch: MicroBatch, values: TokenValues) -> Tensor:
    parts = [values[s] for s in microbatch.sequences]
    return microbatch.scatter(torch.cat(parts) if parts else [])


def _keep_grad_norm(engine: deepspeed.DeepSpeedEngine) -> None:
    """At stage 0 in fp32 DeepSpeed clips by the gradient's norm and forgets it: clip there, and remember."""

    def clip() -> None:
        norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping()).item()
        engine._global_grad_norm = norm
        if not math.isfinite(norm):
            engine.module.zero_grad(set_to_none=True)  # the optimizer passes over what has no gradient

    engine.clip_fp32_gradients = clip


def _tally_mismatch(tally: Tally, sums: MismatchSums, maxima: MismatchMaxima) -> None:
    num_tokens = sums.num_tokens.item()
    tally.mean("sampler/logprob_diff_mean", sums.logprob_diff.item(), num_tokens)
    tally.mean("sampler/prob_diff_mean", sums.prob_diff.item(), num_tokens)
    tally.mean("sampler/kl", sums.kl.item(), num_tokens)
    tally.mean("sampler/ratio_mean", sums.ratio.item(), num_tokens)
    tally.max("sampler/logprob_diff_max", maxima.logprob_diff.item())
    tally.max("sampler/prob_diff_max", maxima.prob_diff.item())
    tally.max("sampler/ratio_max", maxima.ratio.item())


def _schedule(optimizer: OptimizerConfig, total_steps: int):
    """The factor of the learning rate at each optimizer step: a linear rise, then constant or a half cosine to 0."""

    def factor(step: int) -> float:
        if step < optimizer.warmup_steps:
            return (step + 1) / optimizer.warmup_steps
        if optimizer.schedule == Schedule.constant:
            return 1.0
        progress = (step - optimizer.warmup_steps) / max(1, total_steps - optimizer.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor


def _deepspeed_config(config: TrainConfig) -> dict:
    zero = {"stage": config.cluster.zero_stage, "overlap_comm": False}
    if config.cluster.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.cluster.device == Device.cuda}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,  # `step()` ends a minibatch, however many micro-batches it has
        "gradient_clipping": config.optimizer.max_grad_norm,
        "bf16": {"enabled": config.cluster.dtype == DType.bf16},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW needs no compiler
        "steps_per_print": 2**31,
    }
