"""What does not fit the model or its GPUs, and the nearest settings with which all fits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from typing import Any

from grpo_cli.bounds import settings_faults
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.planner.memory import GIB, gpu_memory_gib, plan_memory

MICROBATCH_STEP = 256  # tokens between the budgets to try
MOST_RANKS = 64  # times those given, to try


def shape_faults(config: TrainConfig, shape: ShapeConfig) -> Iterator[str]:
    """What does not suit the model, each with the setting to change; other settings may be wrong as well."""
    size = config.cluster.vllm.tensor_parallel_size
    splits = _engine_sizes(config.cluster.ranks, shape)
    if size >= 1 and not _splits_heads(shape, size):
        yield (
            f"cluster.vllm.tensor_parallel_size={size} cannot share the {shape.num_heads} query and "
            f"{shape.num_kv_heads} key heads of {config.model.name}. "
            f"Set {_choice('cluster.vllm.tensor_parallel_size', _around(size, splits))}."
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


def memory_faults(config: TrainConfig, shape: ShapeConfig) -> Iterator[str]:
    """What does not fit into a GPU, and the nearest settings with which all fits; `config` is valid."""
    overruns = _overruns(config, shape)
    if overruns:
        yield " ".join([*overruns, _hint(config, shape)])


def _overruns(config: TrainConfig, shape: ShapeConfig) -> list[str]:
    """What does not fit; nothing on a CPU, and where a GPU's memory is not known."""
    cluster, memory_gib = config.cluster, gpu_memory_gib(config.cluster)
    if memory_gib is None:
        return []
    memory = plan_memory(config, shape)
    overruns = [
        f"{phase} needs {peak / GIB:.1f} GiB of a GPU that has {memory_gib:g}."
        for phase, peak in memory.phases.items()
        if peak > memory_gib * GIB
    ]
    # vLLM does not start unless the cache holds one sequence of the engine's limit.
    limit = config.model.max_model_len or min(shape.max_model_len, config.rollout.longest_sequence)
    if memory.kv_cache < memory.kv_token * limit:
        overruns.append(
            f"cluster.vllm.gpu_memory_utilization={cluster.vllm.gpu_memory_utilization:g} of {memory_gib:g} GiB leaves "
            f"vLLM {memory.kv_cache / GIB:.1f} GiB of KV cache next to its weights "
            f"({memory.vllm_weights / GIB:.1f} GiB), and one sequence of {limit} tokens takes "
            f"{memory.kv_token * limit / GIB:.1f}."
        )
    return overruns


def _hint(config: TrainConfig, shape: ShapeConfig) -> str:
    """Each single change after which all fits; if there is none, the fewest that do so together."""

    def fits(changes: Mapping[str, Any]) -> bool:
        changed = _with(config, changes)
        return not _overruns(changed, shape) and not any(settings_faults(changed))

    alone = [next(filter(fits, ladder), None) for ladder in _ladders(config, shape)]
    if any(alone):
        return f"Set {', or '.join(_settings(_fewest(changes, fits)) for changes in alone if changes)}."
    factor = 1
    while factor <= MOST_RANKS:
        together = {"cluster.ranks": factor * config.cluster.ranks}
        for ladder in _ladders(_with(config, together), shape):
            if found := next((together | changes for changes in ladder if fits(together | changes)), None):
                return f"Set {_settings(_fewest(found, fits))}."
            together |= ladder[-1]
        factor *= 2
    return "No settings of such GPUs make room: choose a smaller model, or GPUs of more memory."


def _ladders(config: TrainConfig, shape: ShapeConfig) -> Iterator[Sequence[Mapping[str, Any]]]:
    """For each way to make room, the changes to try: the nearest first and, but for the share, the strongest last."""
    cluster, vllm = config.cluster, config.cluster.vllm
    budget, longest = cluster.tokens_per_microbatch, config.rollout.longest_sequence
    if not cluster.gradient_checkpointing:
        yield [{"cluster.gradient_checkpointing": True}]
    if budget > longest:
        smaller = range((budget - 1) // MICROBATCH_STEP * MICROBATCH_STEP, longest, -MICROBATCH_STEP)
        yield [{"cluster.tokens_per_microbatch": tokens} for tokens in [*smaller, longest]]
    if vllm.sleep_level == 0:
        yield [{"cluster.vllm.sleep_level": level} for level in (1, 2)]
    if not cluster.offload_reference:
        yield [{"cluster.offload_reference": True}]
    if not cluster.offload_during_rollout and cluster.zero_stage in (1, 2):
        yield [{"cluster.offload_during_rollout": True}]
    if cluster.zero_stage < 3:
        yield [
            {"cluster.zero_stage": stage} | ({"cluster.offload_during_rollout": False} if stage == 3 else {})
            for stage in range(cluster.zero_stage + 1, 4)
        ]
    if not cluster.offload_optimizer:
        yield [{"cluster.offload_optimizer": True, "cluster.offload_during_rollout": False}]
    larger = [size for size in _engine_sizes(cluster.ranks, shape) if size > vllm.tensor_parallel_size]
    if larger:
        yield [{"cluster.vllm.tensor_parallel_size": size} for size in larger]
    shares = sorted((step / 100 for step in range(5, 96)), key=lambda share: abs(share - vllm.gpu_memory_utilization))
    yield [{"cluster.vllm.gpu_memory_utilization": share} for share in shares]


def _fewest(changes: Mapping[str, Any], fits: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """Changes after which all fits, less those that are not needed for it."""
    needed = dict(changes)
    for key in changes:
        fewer = {other: value for other, value in needed.items() if other != key}
        if fits(fewer):
            needed = fewer
    return needed


def _with(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with some settings of its cluster changed."""
    changed = replace(config, cluster=deepcopy(config.cluster))
    for key, value in changes.items():
        *path, name = key.split(".")
        setattr(reduce(getattr, path, changed), name, value)
    return changed


def _settings(changes: Mapping[str, Any]) -> str:
    """As they are written on the command line."""
    written = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()]
    return " and ".join([*([", ".join(written[:-1])] if written[1:] else []), written[-1]])


def _splits_heads(shape: ShapeConfig, size: int) -> bool:
    """vLLM gives each rank as many query heads, and as many key heads or a copy of one."""
    keys = shape.num_kv_heads
    return shape.num_heads % size == 0 and (keys % size == 0 or size % keys == 0)


def _engine_sizes(ranks: int, shape: ShapeConfig) -> list[int]:
    """The numbers of ranks that can share an engine, rising."""
    return [size for size in range(1, shape.num_heads + 1) if ranks % size == 0 and _splits_heads(shape, size)]


def _around(value: int, allowed: Sequence[int]) -> list[int]:
    """The nearest below and above."""
    return [*[v for v in allowed if v < value][-1:], *[v for v in allowed if v > value][:1]]


def _choice(key: str, values: Sequence[int]) -> str:
    return " or ".join(f"{key}={value}" for value in values)
