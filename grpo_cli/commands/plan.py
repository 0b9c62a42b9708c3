"""`r1zero plan`: what a training run would need and how long it would take, before anything is loaded."""

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


def run(composed: DictConfig) -> None:
    """Print the plan; of `resume=<run folder>` next to what that run measured.

    Raises one ConfigError with every fault: of the settings, else of what they need.
    """
    is_of_a_run = composed.resume.run not in ("never", "auto")
    settings = resumed_settings(composed, given_keys(), "train") if is_of_a_run else composed
    config: TrainConfig = to_typed(settings, "train")
    faults = list(settings_faults(config))
    try:
        shape = find_shape(config.model)
    except ConfigError as error:
        raise_if_any([*faults, str(error)])
    of_shape = list(shape_faults(config, shape))
    if faults:  # there is no arithmetic with settings that cannot work
        raise_if_any([*faults, *of_shape])
    measured = read_measured(Path(config.run.dir).expanduser(), config) if is_of_a_run else None
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
    raise_if_any([*of_shape, *overruns])
    console.print(verdict(config.cluster, memory) + ("" if hardware else GPU_UNKNOWN), soft_wrap=True)


def find_hardware(cluster: ClusterConfig) -> Hardware | None:
    """What one rank has; None of a GPU that is not known, or that is used in fp32, which data sheets do not state."""
    if cluster.device == Device.cuda:
        return find_gpu(cluster.gpu) if cluster.gpu and cluster.dtype == DType.bf16 else None
    return measure_cpu(cluster.ranks, cluster.threads)


def find_shape(model: ModelConfig) -> ShapeConfig:
    """The shape that the settings give, else that of the config.json in the model's folder or the cache of the hub.

    Raises ConfigError where there is none.
    """
    if model.shape is not None:
        return model.shape
    file = _config_file(model)
    if file is None:
        raise ConfigError(
            f"model.path={model.path}: its shape is not known here, and nothing is downloaded to plan. Get its "
            f"config.json once with `hf download {model.path} config.json`, or give the folder of the model as "
            "model.path."
        )
    try:
        return read_shape(file)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{file} does not describe a shape that can be planned ({type(error).__name__}: {error}). Give model.shape "
            "in a file of conf/model, as qwen2_5_math_7b.yaml does."
        ) from error


def _config_file(model: ModelConfig) -> Path | None:
    _, builtin, name = model.path.rpartition("builtin:")
    file = (make_zero.base_model_dir(name) if builtin else Path(model.path).expanduser()) / "config.json"
    if file.is_file():
        return file
    if builtin or model.path.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    except HFValidationError:  # no hub id
        return None
    return Path(cached) if isinstance(cached, str) else None
