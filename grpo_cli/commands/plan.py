"""`r1zero plan`: what a training run would need, before anything is loaded."""

import json
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from grpo_cli.config.check import refuse, train_faults
from grpo_cli.config.compose import to_typed
from grpo_cli.config.plan import (
    GIB,
    Batches,
    Memory,
    memory_faults,
    num_adapter_parameters,
    num_parameters,
    plan_batches,
    plan_memory,
    shape_faults,
)
from grpo_cli.config.schema import ClusterConfig, Device, ModelConfig, ShapeConfig, TrainConfig
from grpo_cli.data import make_zero
from grpo_cli.errors import ConfigError

MIB = 2**20


def run(composed: DictConfig) -> None:
    """Print the plan. Raises one ConfigError with every fault: of the settings, else of what they need."""
    config: TrainConfig = to_typed(composed, "train")
    faults = train_faults(config)
    try:
        shape = find_shape(config.model)
    except ConfigError as error:
        refuse([*faults, str(error)])
    of_shape = list(shape_faults(config, shape))
    if faults:  # there is no arithmetic with settings that cannot work
        refuse([*faults, *of_shape])
    console = Console(width=None if sys.stdout.isatty() else 120)
    batches, memory = plan_batches(config), plan_memory(config, shape)
    for table in (_run_table(config, shape), _batch_table(batches), _memory_table(config, batches, memory)):
        console.print(table)
        console.print()
    refuse([*of_shape, *memory_faults(config, shape)])
    console.print(_verdict(config.cluster, memory), soft_wrap=True)


def find_shape(model: ModelConfig) -> ShapeConfig:
    """The shape that the settings give, else that of the model folder's config.json.

    Raises ConfigError where there is neither.
    """
    if model.shape is not None:
        return model.shape
    _, builtin, name = model.path.rpartition("builtin:")
    file = (make_zero.base_model_dir(name) if builtin else Path(model.path).expanduser()) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"model.path={model.path}: its shape is not known here, and nothing is downloaded to plan. Give the "
            "folder of the model as model.path, or model.shape in its file of conf/model, as qwen2_5_math_7b.yaml does."
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        num_heads = found["num_attention_heads"]
        return ShapeConfig(
            num_layers=found["num_hidden_layers"],
            hidden_size=found["hidden_size"],
            intermediate_size=found["intermediate_size"],
            num_heads=num_heads,
            num_kv_heads=found.get("num_key_value_heads") or num_heads,
            head_dim=found.get("head_dim") or found["hidden_size"] // num_heads,
            vocab_size=found["vocab_size"],
            tied_embeddings=found.get("tie_word_embeddings", False),
            max_model_len=found["max_position_embeddings"],
        )
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{file} does not tell the model's shape ({type(error).__name__}: {error}). Give model.shape in a file of "
            "conf/model, as qwen2_5_math_7b.yaml does."
        ) from error


def _run_table(config: TrainConfig, shape: ShapeConfig) -> Table:
    algorithm, cluster, optimizer = config.algorithm, config.cluster, config.optimizer
    adapters = num_adapter_parameters(shape, config.model.lora)
    moved = {
        "the optimizer": cluster.offload_optimizer,
        "the trainer during rollouts": cluster.offload_during_rollout,
        "the reference": cluster.offload_reference and algorithm.beta > 0,
    }
    rows = {
        "model": f"{config.model.name}, {_count(num_parameters(shape))} parameters, "
        f"reads {shape.max_model_len:,} tokens",
        "adapters": f"rank {config.model.lora.rank}, {_count(adapters)} parameters" if adapters else "",
        "objective": f"surrogate {algorithm.surrogate.value}, epsilon {algorithm.epsilon:g}, beta {algorithm.beta:g}, "
        f"weighting {algorithm.weighting.value}",
        "advantage": f"baseline {algorithm.advantage.baseline.value}, scale {algorithm.advantage.scale.value}, "
        f"groups of {config.rollout.group_size}",
        "optimizer": f"lr {optimizer.lr:g}, {optimizer.schedule.value}",
        "ranks": f"{cluster.ranks} on {cluster.nodes} node(s), {cluster.device.value}, {cluster.dtype.value}, "
        f"ZeRO-{cluster.zero_stage}",
        "in CPU memory": ", ".join(what for what, is_moved in moved.items() if is_moved),
    }
    table = _table("Run", "", "")
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _batch_table(batches: Batches) -> Table:
    table = _table("Batches", "", ">")
    rows = {
        "prompts a rollout": batches.prompts,
        "completions a rollout": batches.completions,
        "completions a rank": batches.completions_per_rank,
        "completions an optimizer step": batches.minibatch_completions,
        "optimizer steps a rollout": batches.steps_per_rollout,
        "optimizer steps of the run": batches.total_steps,
        "longest sequence, tokens": batches.longest_sequence,
        "micro-batches a rank and step, at most": batches.microbatches,
        "largest micro-batch, tokens": batches.microbatch_tokens,
        "tokens a rollout, at most": batches.max_tokens,
    }
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    return table


def _memory_table(config: TrainConfig, batches: Batches, memory: Memory) -> Table:
    cluster, stage = config.cluster, config.cluster.zero_stage
    on_gpu = cluster.device == Device.cuda
    checkpoints = cluster.gradient_checkpointing
    engine = cluster.vllm.tensor_parallel_size

    def sharing(from_stage: int) -> str:
        return f"one part of {cluster.ranks}" if stage >= from_stage and cluster.ranks > 1 else "whole"

    on_cpu = "in CPU memory" if on_gpu and cluster.offload_optimizer else ""
    moves = on_gpu and cluster.offload_reference
    kept = _size(memory.activations_kept)
    rows = [
        ("weights", memory.weights, sharing(3)),
        ("gradients", memory.gradients, on_cpu or sharing(2)),
        ("optimizer", memory.optimizer, on_cpu or sharing(1)),
        ("reference", memory.reference, "for its forward passes only" if moves else "whole"),
        ("buffers of ZeRO", memory.zero_buffers, "while gradients are made"),
        ("activations", memory.activations, f"without gradient checkpointing {kept}" if checkpoints else "all kept"),
        ("logits", memory.logits, "of one chunk of tokens at a time"),
        ("gradients in fp32", memory.gradients_fp32, "while the optimizer steps, activations gone"),
        ("vLLM's weights", memory.vllm_weights, f"one part of {engine}" if engine > 1 else "whole"),
        ("KV cache", memory.kv_cache, _cache_note(config, batches, memory)),
    ]
    table = _table(f"Memory of a {'GPU' if on_gpu else 'rank'}", "", ">", "")
    for name, size, note in rows:
        if size != 0 or note == on_cpu:
            table.add_row(name, "unknown" if size is None else _size(size), note)
    table.add_section()
    notes = {
        "The rollout": "the trainer in CPU memory" if on_gpu and cluster.offload_during_rollout else "",
        "Training": f"vLLM {'asleep' if on_gpu and cluster.vllm.sleep_level else 'awake'}",
    }
    for phase, peak in memory.phases.items():
        table.add_row(phase, _size(peak), notes.get(phase, ""))
    if memory.cpu:
        table.add_row("in CPU memory", _size(memory.cpu), "a rank")
    return table


def _cache_note(config: TrainConfig, batches: Batches, memory: Memory) -> str:
    """How many of the longest sequences the cache holds, and how many an engine is asked for."""
    if memory.kv_cache is None:
        return "cluster.memory_gib is not set"
    vllm = config.cluster.vllm
    holds = int(memory.kv_cache // (memory.kv_token * batches.longest_sequence))
    asked = batches.completions_per_rank * vllm.tensor_parallel_size
    return f"{holds:,} of the longest sequences; {min(asked, vllm.max_num_seqs):,} at once are asked for"


def _verdict(cluster: ClusterConfig, memory: Memory) -> str:
    if cluster.device == Device.cpu:
        return "Nothing here is compared with this machine's memory. `r1zero train` with the same settings starts it."
    if cluster.memory_gib is None:
        return "Set cluster.memory_gib, the memory of one GPU, to be told whether it fits."
    spare = cluster.memory_gib * GIB - max(memory.phases.values())
    return (
        f"By estimates it fits into {cluster.memory_gib:g} GiB a GPU and leaves {_size(spare)}. `r1zero train` with "
        "the same settings starts it."
    )


def _table(title: str, *columns: str) -> Table:
    """Without a header; `>` is a column of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    for column in columns:
        table.add_column(justify="right" if column == ">" else "left")
    return table


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / MIB:.1f} MiB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"
