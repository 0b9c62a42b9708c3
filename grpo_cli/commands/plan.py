"""`r1zero plan`: estimate the memory and time of a training run without loading anything."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.bounds import settings_faults
from grpo_cli.choices import Device, DType
from grpo_cli.commands.hydra_job import given_keys
from grpo_cli.commands.plan_tables import GPU_UNKNOWN, batch_table, memory_table, run_table, time_table, verdict
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.compose import to_typed
from grpo_cli.config.model import ModelConfig, ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.data import make_zero
from grpo_cli.errors import ConfigError, raise_if_any
from grpo_cli.hardware import Hardware, find_gpu, measure_cpu
from grpo_cli.planner.batches import plan_batches
from grpo_cli.planner.duration import assumed_lengths, plan_seconds
from grpo_cli.planner.fit import memory_faults, shape_faults
from grpo_cli.planner.measured import read_measured
from grpo_cli.planner.memory import plan_memory
from grpo_cli.planner.shape import read_shape
from grpo_cli.runs.resume import resumed_settings
from grpo_cli.screen import Screen

LONG_H = 6.0  # from this many hours on, a run on a CPU is announced as long


def run(composed: DictConfig) -> None:
    """Print the plan; with `resume=<run folder>`, next to what that run measured.

    Raises one ConfigError with every fault of the settings or, if they have none, of the memory that they need.
    """
    has_run = composed.resume.run not in ("never", "auto")
    settings = resumed_settings(composed, given_keys(), "train") if has_run else composed
    config: TrainConfig = to_typed(settings, "train")
    faults = list(settings_faults(config))
    try:
        shape = find_shape(config.model)
    except ConfigError as error:
        raise_if_any([*faults, str(error)])
    model_faults = list(shape_faults(config, shape))
    if faults:  # settings that cannot work cannot be planned
        raise_if_any([*faults, *model_faults])
    measured = read_measured(Path(config.run.dir).expanduser(), config) if has_run else None
    batches, memory = plan_batches(config), plan_memory(config, shape)
    overruns = list(memory_faults(config, shape))
    tables = [run_table(config, shape), batch_table(batches), memory_table(config, batches, memory)]
    hardware = find_hardware(config.cluster)
    if hardware and not overruns:
        lengths = measured.lengths if measured else assumed_lengths(config)
        tables.append(time_table(config, hardware, lengths, plan_seconds(config, shape, hardware, lengths), measured))
    console = Screen(width=None if sys.stdout.isatty() else 120)
    for table in tables:
        console.print(table)
        console.print()
    raise_if_any([*model_faults, *overruns])
    if warning := long_run_warning(config):
        console.print(f"{warning}\n", soft_wrap=True)
    console.print(verdict(config.cluster, memory) + ("" if hardware else GPU_UNKNOWN), soft_wrap=True)


def long_run_warning(config: TrainConfig) -> str | None:
    """What to say about a run that this machine's CPU needs very long for; None if it is not one, or unknown."""
    if config.cluster.device != Device.cpu or config.model.path.startswith("builtin:"):
        return None
    try:
        shape = find_shape(config.model)
    except ConfigError:
        return None
    lengths = assumed_lengths(config)
    step_s = plan_seconds(config, shape, measure_cpu(config.cluster.ranks, config.cluster.threads), lengths).step
    hours = config.steps * step_s / 3600
    if hours < LONG_H:
        return None
    time = f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"
    return (
        f"On this CPU the run takes about {time}: {config.steps:,} steps of {step_s:,.0f} s, if responses have "
        f"{lengths.response:,.0f} tokens on average. For a first try, set steps=10 rollout.prompts_per_step=4 "
        "rollout.max_new_tokens=256 data.num_heldout=16, or choose a smaller model; `r1zero plan` shows the parts."
    )


def find_hardware(cluster: ClusterConfig) -> Hardware | None:
    """The hardware of one rank; None for an unknown GPU, or for fp32 on a GPU, which data sheets do not give."""
    if cluster.device == Device.cuda:
        return find_gpu(cluster.gpu) if cluster.gpu and cluster.dtype == DType.bf16 else None
    return measure_cpu(cluster.ranks, cluster.threads)


def find_shape(model: ModelConfig) -> ShapeConfig:
    """The shape in the settings; otherwise that of the model's folder or of the Hub's cache.

    Raises ConfigError if there is none.
    """
    if model.shape is not None:
        return model.shape
    _, builtin, name = model.path.rpartition("builtin:")
    path = make_zero.base_model_dir(name) if builtin else Path(model.path).expanduser()
    try:
        return read_shape(path if path.is_dir() else model.path, model.revision)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not path.is_dir():
            raise ConfigError(
                f"model.path={model.path}: the shape of this model is unknown, and `r1zero plan` downloads nothing. "
                f"Run `hf download {model.path} config.json` once, or set model.path to the folder of the model."
            ) from None
        raise ConfigError(
            f"model.path={model.path}: config.json does not describe a shape that can be planned ({error}). Set "
            "model.shape in a file in conf/model, as qwen2_5_math_7b.yaml does."
        ) from error
