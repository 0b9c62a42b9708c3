"""DeepSpeed's own settings, from those of the run, and one change to its engine."""

import math
from typing import Any

import torch

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.optimizer import OptimizerConfig


def deepspeed_config(optimizer: OptimizerConfig, cluster: ClusterConfig) -> dict[str, Any]:
    """What `deepspeed.initialize` gets as its `config`."""
    zero: dict[str, Any] = {
        "stage": cluster.zero_stage,
        "overlap_comm": False,
        "stage3_param_persistence_threshold": cluster.persistence_threshold,
    }
    if cluster.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cluster.device == Device.cuda}
    # In bf16, summing many micro-batches would round small gradients away, so sum in fp32. Not under ZeRO-1: there
    # DeepSpeed needs another optimizer for it, whose state can neither be offloaded nor resharded.
    sums_in_fp32 = cluster.dtype == DType.bf16 and cluster.zero_stage >= 2
    return {
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,  # `step()` ends a minibatch, whatever its number of micro-batches
        "gradient_clipping": optimizer.max_grad_norm,
        "bf16": {"enabled": cluster.dtype == DType.bf16},
        "data_types": {"grad_accum_dtype": "fp32" if sums_in_fp32 else cluster.dtype.value},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW needs no compiler
        "steps_per_print": 2**31,
    }


def keep_grad_norm(engine: Any) -> None:
    """At stage 0 in fp32, DeepSpeed clips by the gradient's norm but does not keep it. Clip and keep it here."""

    def clip() -> None:
        norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping()).item()
        engine._global_grad_norm = norm
        if not math.isfinite(norm):
            engine.module.zero_grad(set_to_none=True)  # the optimizer skips parameters without a gradient

    engine.clip_fp32_gradients = clip
