"""A network under DeepSpeed. The only module that imports deepspeed."""

import copyreg
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import (
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from deepspeed.utils.tensor_fragment import fragment_address
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import Tensor, nn

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.optimizer import OptimizerConfig
from grpo_cli.errors import DivergedError
from grpo_cli.metrics.metrics import Tally
from grpo_cli.paths import plain_name
from grpo_cli.ranks import gather, rank, start_ranks, world_size
from grpo_cli.training.data_only import data_only
from grpo_cli.training.deepspeed_config import deepspeed_config, keep_grad_norm
from grpo_cli.training.schedule import lr_factor
from grpo_cli.training.shards import MOMENTS, Layout, SavedShards, part_of

DTYPES = {DType.fp32: torch.float32, DType.bf16: torch.bfloat16}
MAX_SKIPPED_STEPS = 3
torch.serialization.add_safe_globals(
    [ZeroStageEnum, LossScaler, fragment_address]
)  # classes in ZeRO's files that only hold data
# Python 3.11.0 to 3.11.3 would write a call of `getattr`, which a load of data only does not allow.
copyreg.pickle(ZeroStageEnum, lambda stage: (ZeroStageEnum, (stage.value,)))


def init_distributed(cluster: ClusterConfig) -> None:
    """Join the other ranks, as `start_ranks` does, and let DeepSpeed use their process group."""
    start_ranks(cluster.device)
    # Otherwise DeepSpeed compiles its shared-memory collectives for CPU ranks: a minute, and it needs a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo" if cluster.device == Device.cpu else "nccl", verbose=False)


class Engine:
    """A network in training, its optimizer and its schedule. Frozen parameters are not saved."""

    def __init__(
        self, network: nn.Module, optimizer: OptimizerConfig, cluster: ClusterConfig, *, total_steps: int, name: str
    ) -> None:
        """`total_steps` counts optimizer steps, for the schedule. The metrics of `step` are `<name>/...`."""
        self._name = name
        self._cluster = cluster
        self._settings = optimizer
        self._factor = lr_factor(optimizer, total_steps)
        self._has_frozen = not all(parameter.requires_grad for parameter in network.parameters())
        adamw = torch.optim.AdamW(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            lr=optimizer.lr,
            betas=tuple(optimizer.betas),
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=network,
            optimizer=adamw,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(adamw, self._factor),
            config=deepspeed_config(optimizer, cluster),
        )
        keep_grad_norm(self._engine)
        self._is_offloaded = False
        self._skipped_in_a_row = 0

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self._engine(*inputs, **options)

    @property
    def network(self) -> nn.Module:
        return self._engine.module

    @property
    def device(self) -> torch.device:
        return self._engine.device

    @property
    def num_steps(self) -> int:
        """The number of optimizer steps taken."""
        return self._engine.global_steps

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer holds for its next step."""
        return self._optimizer.param_groups[0]["lr"]

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`. The sum of the losses of all ranks and micro-batches is the objective."""
        # DeepSpeed averages gradients over ranks. The loss already has the global denominator, so undo that.
        self._engine.backward(loss * world_size(), scale_wrt_gas=False)

    def step(self, tally: Tally) -> None:
        """Take one optimizer step, or skip it if the gradient is not finite. Raises DivergedError after a few skips."""
        self._engine.step()
        tally.mean(f"{self._name}/loss", 0.0, 1 / world_size())
        norm = float(self._engine.get_global_grad_norm())
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
            tally.mean(f"{self._name}/grad_norm", norm, 1)
            tally.sum(f"{self._name}/skipped_steps", 0)
            return
        self._skipped_in_a_row += 1
        tally.sum(f"{self._name}/skipped_steps", 1 / world_size())  # every rank counts its share
        if self._skipped_in_a_row == MAX_SKIPPED_STEPS:
            raise DivergedError(f"The gradient was not finite in {MAX_SKIPPED_STEPS} optimizer steps in a row.")

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[None]:
        """A context in which these parameters are whole on every rank, at any ZeRO stage; called on all ranks."""
        return deepspeed.zero.GatheredParameters(list(parameters), enabled=self.is_sharded and bool(parameters))

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds only its part of each weight."""
        return self._cluster.zero_stage == 3

    def offload(self) -> None:
        """Move the training state to CPU memory, if the cluster settings say so. Called on all ranks."""
        if self._cluster.offload_during_rollout and not self._is_offloaded:
            self._engine.offload_states()
            deepspeed.get_accelerator().empty_cache()
            self._is_offloaded = True

    def reload(self) -> None:
        """Move back what `offload` moved."""
        if self._is_offloaded:
            self._engine.reload_states()
            self._is_offloaded = False

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and schedule, each rank its part. Raises DivergedError if a weight is not finite."""
        was_offloaded = self._is_offloaded
        self.reload()
        weights = self._own_weights()
        if self._cluster.zero_stage == 3:  # parts are padded to one size, with memory that is never set
            weights = chain.from_iterable(self._optimizer.get_groups_without_padding(weights))
        if not all(gather(all(part.isfinite().all() for part in weights))):
            raise DivergedError("The weights are not finite, and no later step can repair them.")
        self._engine.save_checkpoint(
            str(folder.parent),
            tag=folder.name,
            client_state={"skipped_in_a_row": self._skipped_in_a_row},
            save_latest=False,
            exclude_frozen_parameters=self._has_frozen,
        )
        if was_offloaded:
            self.offload()

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote. Called on all ranks.

        Returns whether it had to be resharded, because it was written with another number of ranks, another ZeRO stage
        or another dtype. Weights, moments and the number of steps come from the file; learning rate, schedule and all
        other optimizer settings are this run's.

        Raises CheckpointError if it is the state of another model.
        """
        saved = SavedShards(folder)
        shapes = {
            name: getattr(p, "ds_shape", p.shape) for name, p in self._trained().items()
        }  # ds_shape: under ZeRO-3
        saved.check_same_model(shapes, known=self._engine.module.state_dict().keys())
        layout = Layout(world_size(), self._cluster.zero_stage, self._cluster.dtype == DType.bf16)
        if saved.layout == layout:
            # The file has no frozen parameters.
            with plain_name(folder.parent) as parent, data_only():
                self._engine.load_checkpoint(parent, tag=folder.name, load_module_strict=not self._has_frozen)
        else:
            self._reshard(saved)
        self._apply_settings()
        self._skipped_in_a_row = saved.model_states["skipped_in_a_row"]
        return saved.layout != layout

    def _apply_settings(self) -> None:
        """Apply this run's optimizer settings: loading a state also loads the settings of the run that wrote it."""
        settings, schedule = self._settings, self._engine.lr_scheduler
        lr = settings.lr * self._factor(schedule.last_epoch)  # exactly as the schedule computes it
        for group in self._optimizer.param_groups:
            group.update(lr=lr, initial_lr=settings.lr, betas=tuple(settings.betas), eps=settings.eps)
            group["weight_decay"] = settings.weight_decay
        schedule.base_lrs = [settings.lr for _ in schedule.base_lrs]
        schedule._last_lr = [lr for _ in schedule.base_lrs]
        if hasattr(self._optimizer, "clip_grad"):  # only ZeRO's optimizers have it
            self._optimizer.clip_grad = settings.max_grad_norm

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._engine.module.named_parameters() if p.requires_grad}

    def _own_weights(self) -> Iterable[Tensor]:
        """The tensors that this rank updates: under ZeRO, its part of the fp32 weights."""
        if self._cluster.zero_stage == 0:
            return self._trained().values()
        if self._cluster.zero_stage == 3:
            return self._optimizer.fp32_partitioned_groups_flat
        return self._optimizer.single_partition_of_fp32_groups

    @torch.no_grad()
    def _reshard(self, saved: SavedShards) -> None:
        """Load a training state of another layout, one parameter at a time."""
        trained = self._trained()
        optimizer = saved.optimizer(list(trained))
        if self._cluster.zero_stage and optimizer.step is not None:
            self._init_optimizer_state(optimizer.step)
        for name, parameter in trained.items():
            weight, *moments = (tensor.to(self._engine.device) for tensor in optimizer.tensors(name))
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self._cluster.zero_stage == 3):
                parameter.copy_(weight)
            if self._cluster.zero_stage == 3:
                safe_set_local_fp32_param(parameter, part_of(weight, rank(), world_size()))
                for key, moment in zip(MOMENTS, moments, strict=False):
                    safe_set_local_optimizer_state(parameter, part_of(moment, rank(), world_size()), key)
            elif self._cluster.zero_stage:
                safe_set_full_fp32_param(parameter, weight)
                for key, moment in zip(MOMENTS, moments, strict=False):
                    safe_set_full_optimizer_state(parameter, moment, key)
            elif moments and optimizer.step is not None:
                step = optimizer.step.to(parameter.device, copy=True)
                self._optimizer.state[parameter] = {"step": step, **dict(zip(MOMENTS, moments, strict=True))}
        self._engine.lr_scheduler.load_state_dict(saved.model_states["lr_scheduler"])
        self._engine.global_steps = saved.model_states["global_steps"]
        self._engine.skipped_steps = saved.model_states["skipped_steps"]

    def _init_optimizer_state(self, step: Tensor) -> None:
        """Give ZeRO's flat tensors the state that torch's AdamW creates in its first step."""
        zero = self._optimizer
        for flat in self._own_weights():
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            zero.optimizer.state[flat] = {"step": step.to(flat.device, copy=True), **moments}
        if self._cluster.zero_stage != 3:
            zero._lazy_init_hp_params_optimizer_state()


def consolidated_weights(folder: Path) -> dict[str, Tensor]:
    """{Hugging Face name: tensor} of every weight that `Policy.save` wrote, for any ZeRO stage and number of ranks.

    Needs no process group and no GPU. With ZeRO 1 to 3 these are the fp32 master weights. For a run with adapters they
    are the adapters' weights, under peft's names.
    """
    if any(folder.glob("*_optim_states.pt")):
        with plain_name(folder.parent) as parent, data_only():
            weights = get_fp32_state_dict_from_zero_checkpoint(parent, tag=folder.name)
    else:
        (states,) = folder.glob("mp_rank_*_model_states.pt")
        weights = torch.load(states, map_location="cpu", weights_only=True)["module"]
    return {name.removeprefix("model."): weight for name, weight in weights.items()}
