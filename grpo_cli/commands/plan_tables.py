"""The tables that `r1zero plan` prints."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import GPUS, Hardware
from grpo_cli.planner.batches import Batches, num_at_once
from grpo_cli.planner.duration import BANDWIDTH_SHARE, MATRIX_SHARE, Lengths, Seconds
from grpo_cli.planner.layouts import Layout, choose
from grpo_cli.planner.measured import Measured
from grpo_cli.planner.memory import GIB, Memory, gpu_memory_gib
from grpo_cli.planner.shape import num_adapter_parameters, num_parameters

MIB = 2**20
GPU_UNKNOWN = (
    "\nSet cluster.gpu to a GPU model to see how long a step takes in bf16. Known models: "
    f"{', '.join(gpu.name for gpu in GPUS)}."
)


def run_table(config: TrainConfig, shape: ShapeConfig) -> Table:
    algorithm, cluster, optimizer = config.algorithm, config.cluster, config.optimizer
    adapters = num_adapter_parameters(shape, config.model.lora)
    moved = {
        "the optimizer": cluster.offload_optimizer,
        "the trainer during rollouts": cluster.offload_during_rollout,
        "the reference": cluster.offload_reference and algorithm.beta > 0,
    }
    functions = algorithm.functions
    rows = {
        "model": f"{config.model.name}, {_count(num_parameters(shape))} parameters, "
        f"reads {shape.max_model_len:,} tokens",
        "adapters": f"rank {config.model.lora.rank}, {_count(adapters)} parameters" if adapters else "",
        "objective": f"surrogate {functions.surrogate or algorithm.surrogate.value}, epsilon {algorithm.epsilon:g}, "
        f"beta {algorithm.beta:g}, weighting {functions.weighting or algorithm.weighting.value}",
        "advantage": _advantage(config),
        "optimizer": f"lr {optimizer.lr:g}, {optimizer.schedule.value}",
        "ranks": f"{cluster.ranks} on {cluster.nodes} node(s), {cluster.device.value}, {cluster.dtype.value}, "
        f"ZeRO-{cluster.zero_stage}" + (f"; {cluster.rollout_ranks} only generate" if cluster.rollout_ranks else ""),
        "in CPU memory": ", ".join(what for what, is_moved in moved.items() if is_moved),
    }
    return fact_table("Run", rows)


def _advantage(config: TrainConfig) -> str:
    advantage, groups = config.algorithm.advantage, f", groups of {config.rollout.group_size}"
    if config.critic:
        return f"from a critic, gamma {advantage.gamma:g}, lambda {advantage.gae_lambda:g}{groups}"
    baseline = f"baseline {advantage.baseline.value}, scale {advantage.scale.value}"
    return (config.algorithm.functions.advantage or baseline) + groups


def fact_table(title: str, rows: Mapping[str, str]) -> Table:
    """A table of names and texts, without the empty texts."""
    table = _table(title, "", "")
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def batch_table(batches: Batches) -> Table:
    table = _table("Batches", "", ">")
    rows = {
        "prompts per rollout": batches.prompts,
        "completions per rollout": batches.completions,
        "completions per rank": batches.completions_per_rank,
        "completions per rank that trains": batches.completions_per_trainer,
        "completions per optimizer step": batches.minibatch_completions,
        "optimizer steps per rollout": batches.steps_per_rollout,
        "optimizer steps of the run": batches.total_steps,
        "longest sequence, tokens": batches.longest_sequence,
        "micro-batches per rank and step, at most": batches.microbatches,
        "largest micro-batch, tokens": batches.microbatch_tokens,
        "tokens per rollout, at most": batches.max_tokens,
    }
    if batches.completions_per_trainer == batches.completions_per_rank:
        del rows["completions per rank that trains"]
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    return table


def memory_table(config: TrainConfig, batches: Batches, memory: Memory) -> Table:
    cluster, stage = config.cluster, config.cluster.zero_stage
    on_gpu = cluster.device == Device.cuda
    checkpoints = cluster.gradient_checkpointing
    engine = cluster.vllm.tensor_parallel_size

    def sharing(from_stage: int) -> str:
        return f"one shard of {cluster.train_ranks}" if stage >= from_stage and cluster.train_ranks > 1 else "whole"

    on_cpu = "in CPU memory" if on_gpu and cluster.offload_optimizer else ""
    moves = on_gpu and cluster.offload_reference
    kept = _size(memory.activations_kept)
    gradients, asleep = memory.gradients, on_gpu and cluster.vllm.sleep_level > 0
    rows = [
        ("weights", memory.weights, sharing(3)),
        ("gradients", gradients.held, on_cpu if on_cpu and not gradients.held else sharing(2)),
        ("optimizer", memory.optimizer, on_cpu or sharing(1)),
        ("reference", memory.reference, "only for its forward passes" if moves else "whole"),
        ("critic", memory.critic, "its weights and optimizer, with the shape of the model"),
        ("buffers of ZeRO", memory.zero_buffers, "during the backward pass"),
        ("activations", memory.activations, f"without gradient checkpointing {kept}" if checkpoints else "all kept"),
        ("logits", memory.logits, "one chunk of tokens at a time"),
        ("output layer's gradient", memory.output_gradient, "the sum over chunks, and that of one chunk"),
        ("gradients, copied", gradients.at_step, "in the optimizer step, after the activations"),
        ("vLLM's weights", memory.vllm_weights, f"one shard of {engine}" if engine > 1 else "whole"),
        ("KV cache", memory.kv_cache, _cache_note(config, batches, memory)),
    ]
    is_split = cluster.rollout_ranks > 0
    table = _table(f"Memory of a {'GPU' if on_gpu else 'rank'}", "", ">", "")
    for name, size, note in rows:
        if size != 0 or note == on_cpu:
            table.add_row(name, "unknown" if size is None else _size(size), note)
    table.add_section()
    notes = {
        "The start": "the whole model, before it is sharded",
        "The rollout": "a rank that only generates"
        if is_split
        else "the trainer in CPU memory"
        if memory.moved_out
        else "",
        "Training": "a rank that only trains" if is_split else f"vLLM {'asleep' if asleep else 'awake'}",
    }
    for phase, peak in memory.phases.items():
        table.add_row(phase, _size(peak), notes.get(phase, ""))
    if memory.cpu:
        table.add_row("in CPU memory", _size(memory.cpu), "per rank; pinned buffers are powers of two")
    if memory.cpu_start:
        table.add_row("... at the start", _size(memory.cpu_start), "per rank; each loads the whole model")
    return table


def time_table(
    config: TrainConfig, hardware: Hardware, lengths: Lengths, seconds: Seconds, measured: Measured | None
) -> Table:
    """Seconds of a step and hours of the run, next to the measured ones."""
    step = seconds.step(config.rollout.max_staleness)
    table = _table("Time, an estimate", "", ">", *([">"] if measured else []), "")

    def row(name: str, estimate: str, was: str, note: str) -> None:
        table.add_row(name, estimate, *([was] if measured else []), note)

    parts = {
        "forward and backward": seconds.passes,
        "optimizer": seconds.optimizer,
        "between ranks": seconds.exchange,
        "to CPU memory and back": seconds.swap,
    }
    shown = ", ".join(f"{name} {_seconds(part)}" for name, part in parts.items() if part >= 0.001 * step)
    if measured:
        row("", "estimate", "measured", f"medians of {measured.num_steps} steps")
    row("generation", _seconds(seconds.generation), _seconds(measured.rollout) if measured else "", "")
    row("update", _seconds(seconds.update), _seconds(measured.update) if measured else "", shown)
    row("weight sync", _seconds(seconds.sync), _seconds(measured.sync) if measured else "", "")
    table.add_section()
    row("one step", _seconds(step), _seconds(measured.step) if measured else "", _assumed(lengths, measured))
    hours, hours_measured = (config.steps * s / 3600 for s in (step, measured.step if measured else 0.0))
    note = f"{config.steps:,} steps, without evaluation and checkpoints"
    row("the run", _hours(hours), _hours(hours_measured), note)
    if config.cluster.device == Device.cuda:
        ranks = config.cluster.ranks
        row("GPU hours", f"{ranks * hours:,.1f}", f"{ranks * hours_measured:,.1f}", f"of {ranks} GPUs")
    peak = f"{hardware.peak_flops / 1e12:.3g} TFLOP/s and {hardware.bandwidth / 1e9:,.0f} GB/s"
    row("hardware", "", "", f"{hardware.name}: {MATRIX_SHARE:.0%} of {peak} at {BANDWIDTH_SHARE:.0%}")
    return table


def layout_table(layouts: Sequence[Layout]) -> Table:
    """Seconds of a step, and the share of time in which ranks wait or only the longest responses are left."""
    table = _table("Layouts, an estimate", "", ">", ">", ">", ">")
    table.add_row("", "cluster.rollout_ranks", "rollout.max_staleness", "one step", "idle")
    for layout in layouts:
        name = "the best split" if layout.rollout_ranks else "every rank does both"
        numbers = f"{layout.rollout_ranks}", f"{layout.max_staleness}", _seconds(layout.step), f"{layout.idle:.0%}"
        table.add_row(name, *numbers)
    return table


def layout_verdict(layouts: Sequence[Layout]) -> str:
    """Which layout the estimate favours, and by how much."""
    fastest, chosen = min(layouts, key=lambda layout: layout.step), choose(layouts)
    colocated = next((layout for layout in layouts if not layout.rollout_ranks), None)
    settings = " ".join(f"{key}={value:g}" for key, value in fastest.changes.items())
    if not colocated:
        return f"Only a split fits into memory. Set {settings}."
    speed = f"{colocated.step / fastest.step:.2f} times as fast"
    if chosen is not colocated:
        return f"By this estimate a split is {speed}: set {settings}."
    if fastest is not colocated:
        return f"Let every rank do both: the best split would be {speed}, which is less than the estimate's error."
    slower = min((layout.step for layout in layouts if layout.rollout_ranks), default=None)
    behind = f": the best split would take {slower / colocated.step:.2f} times as long" if slower else ""
    return f"By this estimate it is fastest if every rank generates and trains{behind}."


def _assumed(lengths: Lengths, measured: Measured | None) -> str:
    """The lengths that the estimate assumes."""
    if measured:
        return f"responses as measured: {lengths.response:,.0f} tokens on average, {lengths.longest:,.0f} at most"
    return (
        f"if responses have {lengths.response:,.0f} tokens on average (half of rollout.max_new_tokens) and "
        f"prompts {lengths.prompt:,.0f}"
    )


def _cache_note(config: TrainConfig, batches: Batches, memory: Memory) -> str:
    """How many sequences of maximum length the cache holds, and how many are generated at the same time."""
    if memory.kv_cache is None:
        return "neither cluster.gpu nor cluster.memory_gib is set"
    vllm = config.cluster.vllm
    holds = int(memory.kv_cache // (memory.kv_token * batches.longest_sequence))
    asked = batches.completions_per_rank * vllm.tensor_parallel_size
    return f"{holds:,} of the longest sequences; {min(asked, num_at_once(config.cluster)):,} are generated at once"


def verdict(cluster: ClusterConfig, memory: Memory) -> str:
    if cluster.device == Device.cpu:
        return "The memory of this machine is not checked. To start the run, use `r1zero train` with the same settings."
    memory_gib = gpu_memory_gib(cluster)
    if memory_gib is None:
        return "Set cluster.memory_gib, the memory of one GPU, to see whether it fits."
    spare = memory_gib * GIB - max(memory.phases.values())
    return (
        f"By this estimate it fits into {memory_gib:g} GiB per GPU and leaves {_size(spare)}. To start it, run "
        "`r1zero train` with the same settings."
    )


def _table(title: str, *columns: str) -> Table:
    """A table without a header; a column `>` holds numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    for column in columns:
        table.add_column(justify="right" if column == ">" else "left")
    return table


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / MIB:.1f} MiB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
