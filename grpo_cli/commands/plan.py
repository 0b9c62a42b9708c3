"""`r1zero plan`: estimate the memory and time of a training run without loading anything."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean

from omegaconf import DictConfig

from grpo_cli.bounds import settings_faults
from grpo_cli.choices import Device, DType
from grpo_cli.commands.data_check import (
    check_prompts,
    data_table,
    data_warnings,
    first_prompt,
    prompt_lengths,
    unknown_text_warnings,
)
from grpo_cli.commands.hydra_job import given_keys
from grpo_cli.commands.plan_tables import (
    GPU_UNKNOWN,
    batch_table,
    layout_table,
    layout_verdict,
    memory_table,
    run_table,
    time_table,
    verdict,
)
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.compose import to_typed
from grpo_cli.config.data import DataConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.file_tokenizer import local_tokenizer
from grpo_cli.data.problems import load_problem_set
from grpo_cli.errors import ConfigError, raise_if_any
from grpo_cli.hardware import Hardware, find_gpu, measure_cpu
from grpo_cli.model_files import find_shape, find_teacher_shape
from grpo_cli.planner.batches import plan_batches
from grpo_cli.planner.duration import assumed_lengths, plan_seconds
from grpo_cli.planner.fit import memory_faults, shape_faults
from grpo_cli.planner.layouts import plan_layouts
from grpo_cli.planner.measured import read_measured
from grpo_cli.planner.memory import plan_memory
from grpo_cli.runs.resume import resumed_settings
from grpo_cli.screen import Screen

HUB_DATA = (
    "The data set {} is not read: it is on the Hub, and `r1zero plan` downloads nothing. With HF_HUB_OFFLINE=1, it "
    "reads a copy in the cache.\n"
)
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
        shape, teacher = find_shape(config.model), find_teacher_shape(config)
    except ConfigError as error:
        raise_if_any([*faults, str(error)])
    model_faults = list(shape_faults(config, shape))
    if faults:  # settings that cannot work cannot be planned
        raise_if_any([*faults, *model_faults])
    problems = load_problem_set(config.data, config.seed) if _is_here(config.data) else None
    tokenizer = local_tokenizer(config.model)
    measured = read_measured(Path(config.run.dir).expanduser(), config) if has_run else None
    batches, memory = plan_batches(config), plan_memory(config, shape, teacher)
    overruns = list(memory_faults(config, shape, teacher))
    tables = [run_table(config, shape), batch_table(batches), memory_table(config, batches, memory)]
    layouts = []
    hardware = find_hardware(config.cluster)
    if hardware and not overruns:
        lengths = measured.lengths if measured else assumed_lengths(config)
        if problems and tokenizer and not measured:
            limit = config.rollout.max_prompt_tokens
            kept = [length for length in prompt_lengths(config, problems, tokenizer) if length <= limit]
            lengths = replace(lengths, prompt=mean(kept)) if kept else lengths
        seconds = plan_seconds(config, shape, hardware, lengths, teacher)
        tables.append(time_table(config, hardware, lengths, seconds, measured))
        if config.cluster.ranks > 1:
            layouts = plan_layouts(config, shape, hardware, lengths, teacher)
            tables.append(layout_table(layouts))
    if problems:
        tables.insert(1, data_table(config, problems, tokenizer))
    console = Screen(width=None if sys.stdout.isatty() else 120)
    for table in tables:
        console.print(table)
        console.print()
    if not problems:
        console.print(HUB_DATA.format(config.data.source), soft_wrap=True)
    raise_if_any([*model_faults, *overruns])
    if problems:
        check_prompts(config, problems)
    for warning in (
        *config.warnings(given_keys()),
        *long_run_warnings(config),
        *(data_warnings(config, len(problems.train)) if problems else ()),
        *(unknown_text_warnings(config, problems) if problems else ()),
    ):
        console.print(f"warning: {warning}", soft_wrap=True)
    if problems and tokenizer:
        console.print("The first prompt:\n", markup=False)
        console.print(first_prompt(config, problems, tokenizer) + "\n", markup=False, highlight=False, soft_wrap=True)
    if layouts:
        console.print(layout_verdict(layouts), soft_wrap=True)
    console.print(verdict(config.cluster, memory) + ("" if hardware else GPU_UNKNOWN), soft_wrap=True)


def _is_here(data: DataConfig) -> bool:
    """Whether the data can be read without a download."""
    is_builtin = data.source is not None and data.source.startswith("builtin:")
    return (
        data.path is not None
        or is_builtin
        or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    )


def long_run_warnings(config: TrainConfig) -> Iterator[str]:
    """What to say about a run that this machine's CPU needs very long for, as far as that is known."""
    if config.cluster.device != Device.cpu or config.model.path.startswith("builtin:"):
        return
    try:
        shape, teacher = find_shape(config.model), find_teacher_shape(config)
    except ConfigError:
        return
    lengths = assumed_lengths(config)
    hardware = measure_cpu(config.cluster.ranks, config.cluster.threads)
    step_s = plan_seconds(config, shape, hardware, lengths, teacher).step(config.rollout.max_staleness)
    hours = config.steps * step_s / 3600
    if hours < LONG_H:
        return
    time = f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"
    yield (
        f"On this CPU the run takes about {time}: {config.steps:,} steps of {step_s:,.0f} s, if responses have "
        f"{lengths.response:,.0f} tokens on average. For a first try, set steps=10 rollout.prompts_per_step=4 "
        "rollout.max_new_tokens=256 data.num_heldout=16, or choose a smaller model; `r1zero plan` shows the parts."
    )


def find_hardware(cluster: ClusterConfig) -> Hardware | None:
    """The hardware of one rank; None for an unknown GPU, or for fp32 on a GPU, which data sheets do not give."""
    if cluster.device == Device.cuda:
        return find_gpu(cluster.gpu) if cluster.gpu and cluster.dtype == DType.bf16 else None
    return measure_cpu(cluster.ranks, cluster.threads)
