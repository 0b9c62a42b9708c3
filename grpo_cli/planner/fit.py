"""Settings that do not fit the model or the GPUs, and suggested changes."""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from typing import Any

from grpo_cli.bounds import settings_faults
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.planner.memory import GIB, gpu_memory_gib, plan_memory


def shape_faults(config: TrainConfig, shape: ShapeConfig) -> Iterator[str]:
    """Settings that do not match the model, each with the fix; other settings may be wrong as well."""
    size = config.cluster.vllm.tensor_parallel_size
    sizes = _engine_sizes(config.cluster.engine_ranks, shape)
    if size >= 1 and not _splits_heads(shape, size):
        yield (
            f"cluster.vllm.tensor_parallel_size={size} cannot divide the {shape.num_heads} query and "
            f"{shape.num_kv_heads} key heads of {config.model.name}. "
            f"Set cluster.vllm.tensor_parallel_size to one of {', '.join(map(str, sizes))}."
        )
    context, limit = shape.max_model_len, config.model.max_model_len
    longest, prompt = config.rollout.longest_sequence, config.rollout.max_prompt_tokens
    if limit is not None and limit > context:
        yield (
            f"model.max_model_len={limit}: {config.model.name} reads at most {context} tokens. "
            f"Set model.max_model_len={context}."
        )
    elif limit is None and longest > context:
        hint = (
            f"Set rollout.max_new_tokens={context - prompt}" if context > prompt else "Lower rollout.max_prompt_tokens"
        )
        yield (
            f"rollout.max_prompt_tokens={prompt} and rollout.max_new_tokens={longest - prompt} need {longest} tokens, "
            f"and {config.model.name} reads at most {context}. {hint}."
        )


def fits(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None = None) -> bool:
    """Whether the settings can work and the memory is enough, or unknown."""
    return _missing(config, shape, teacher) == 0


def memory_faults(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None = None) -> Iterator[str]:
    """Everything that does not fit into a GPU, with settings to change; `config` is valid."""
    overruns = _overruns(config, shape, teacher)
    if overruns:
        yield " ".join([*overruns, _hint(config, shape, teacher)])


def _overruns(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None) -> dict[str, float]:
    """Each thing that does not fit, and by how many bytes; empty on a CPU, or if a GPU's memory is unknown."""
    cluster, memory_gib = config.cluster, gpu_memory_gib(config.cluster)
    if memory_gib is None:
        return {}
    memory = plan_memory(config, shape, teacher)
    kv_cache = memory.kv_cache or 0.0
    overruns = {
        f"{phase} needs {peak / GIB:.1f} GiB of a GPU that has {memory_gib:g}.": peak - memory_gib * GIB
        for phase, peak in memory.phases.items()
        if peak > memory_gib * GIB
    }
    # vLLM starts only if the cache holds one sequence of the engine's maximum length.
    limit = config.model.max_model_len or min(shape.max_model_len, config.rollout.longest_sequence)
    if kv_cache < memory.kv_token * limit:
        text = (
            f"cluster.vllm.gpu_memory_utilization={cluster.vllm.gpu_memory_utilization:g} of {memory_gib:g} GiB leaves "
            f"vLLM {kv_cache / GIB:.1f} GiB of KV cache next to its weights "
            f"({memory.vllm_weights / GIB:.1f} GiB), but one sequence of {limit} tokens needs "
            f"{memory.kv_token * limit / GIB:.1f}."
        )
        overruns[text] = memory.kv_token * limit - kv_cache
    return overruns


def _hint(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None) -> str:
    """The first of the changes below that is enough alone; otherwise the first ones that are enough together."""
    hints = _hints(config, shape)
    if found := next((hint for hint in hints if _missing(changed(config, hint), shape, teacher) == 0), None):
        return _advice(config, shape, teacher, found)
    together: dict[str, Any] = {}
    for hint in hints:
        if _missing(changed(config, together | hint), shape, teacher) < _missing(
            changed(config, together), shape, teacher
        ):
            together |= hint
    if together and _missing(changed(config, together), shape, teacher) == 0:
        return _advice(config, shape, teacher, together)
    return "No setting that `r1zero plan` knows makes it fit: use more or larger GPUs, or a smaller model."


def _hints(config: TrainConfig, shape: ShapeConfig) -> list[dict[str, Any]]:
    """The changes to try, in order: roughly, those that cost the least time come first."""
    in_place = {"cluster.offload_during_rollout": False}  # does not work together with some of the changes
    sizes = _engine_sizes(config.cluster.engine_ranks, shape)
    return [
        {"cluster.vllm.sleep_level": 1},
        {"cluster.gradient_checkpointing": True},
        {"cluster.tokens_per_microbatch": config.rollout.longest_sequence},
        {"cluster.offload_reference": True},
        {"cluster.zero_stage": 2},
        {"cluster.zero_stage": 3} | in_place,
        {"cluster.vllm.gpu_memory_utilization": 0.5},
        {"cluster.vllm.gpu_memory_utilization": 0.3},
        {"cluster.offload_during_rollout": True},
        {"cluster.offload_optimizer": True} | in_place,
        *({"cluster.vllm.tensor_parallel_size": size} for size in sizes if size > 1),
    ]


def _missing(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None) -> float:
    """Bytes that do not fit; infinite for settings that cannot work."""
    return math.inf if any(settings_faults(config)) else sum(_overruns(config, shape, teacher).values())


def _advice(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None, changes: Mapping[str, Any]) -> str:
    written = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in changes.items()
        if reduce(getattr, key.split("."), config) != value
    ]
    peak = max(plan_memory(changed(config, changes), shape, teacher).phases.values())
    return f"Set {' '.join(written)}: the most that a GPU then needs is {peak / GIB:.1f} GiB."


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with some settings of its cluster and rollouts changed."""
    copy = replace(config, cluster=deepcopy(config.cluster), rollout=replace(config.rollout))
    for key, value in changes.items():
        *path, name = key.split(".")
        setattr(reduce(getattr, path, copy), name, value)
    return copy


def _splits_heads(shape: ShapeConfig, size: int) -> bool:
    """vLLM gives each rank equally many query heads, and equally many key heads or a copy of one."""
    keys = shape.num_kv_heads
    return shape.num_heads % size == 0 and (keys % size == 0 or size % keys == 0)


def _engine_sizes(ranks: int, shape: ShapeConfig) -> list[int]:
    """The numbers of ranks that can share an engine, in increasing order."""
    return [size for size in range(1, shape.num_heads + 1) if ranks % size == 0 and _splits_heads(shape, size)]
