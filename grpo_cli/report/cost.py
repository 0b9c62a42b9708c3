"""What the networks of a run need in memory, next to PPO with a critic and a reward model."""

from dataclasses import replace
from typing import Any

from grpo_cli.choices import DType
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import ConfigError
from grpo_cli.model_files import find_shape, find_teacher_shape
from grpo_cli.planner.memory import BYTES, plan_gradients, plan_memory
from grpo_cli.planner.shape import num_adapter_parameters, num_critic_parameters, num_parameters


def cost(config: Any) -> dict[str, Any] | None:
    """`parameters`, and rows for this run (`run`) and for PPO (`with_critic`): network, weights, gradients and
    optimizer in bytes over all ranks; None if the model's shape is unknown, or the run trains without rollouts.

    By the same arithmetic as `r1zero plan`. PPO (arXiv:1707.06347, as in arXiv:2203.02155) trains a critic as large as
    the policy, and scores with a reward model of this size; both have an output of one value.
    """
    if not isinstance(config, TrainConfig):
        return None
    try:
        shape, teacher = find_shape(config.model), find_teacher_shape(config)
    except ConfigError:
        return None
    parameters, adapters = num_parameters(shape), num_adapter_parameters(shape, config.model.lora)
    policy = _trained("policy", config, parameters, adapters)
    critic = _trained("critic", config, num_critic_parameters(shape))
    frozen = float(BYTES[config.cluster.dtype] * parameters)
    engine = [
        "policy in vLLM",
        frozen * config.cluster.engine_ranks / config.cluster.vllm.tensor_parallel_size,
        0.0,
        0.0,
    ]
    held = plan_memory(config, shape, teacher).reference
    reference = [["reference", held, 0.0, 0.0]] if held else []
    return {
        "parameters": parameters,
        "run": [policy, *([critic] if config.critic else []), *reference, engine],
        "with_critic": [policy, critic, ["reference", frozen, 0.0, 0.0], ["reward model", frozen, 0.0, 0.0], engine],
    }


def _trained(name: str, config: TrainConfig, parameters: int, adapters: int = 0) -> list[Any]:
    """A trained network on all ranks together: one copy, however it is sharded."""
    trained = adapters or parameters
    width = BYTES[config.cluster.dtype]
    has_master = config.cluster.zero_stage in (1, 2) or config.cluster.dtype == DType.bf16
    gradients = plan_gradients(replace(config.cluster, ranks=1, rollout_ranks=0, offload_optimizer=False), trained).held
    return [name, float(width * (parameters + adapters)), gradients, float((12 if has_master else 8) * trained)]
