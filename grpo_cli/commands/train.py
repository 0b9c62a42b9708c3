"""r1zero train: compose, check, make the run folder, start the ranks."""

import json
import os
import sys
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.commands.hydra_job import earlier_objective, given_keys, in_sweep, place_in_sweep
from grpo_cli.commands.run_folder import held, is_empty
from grpo_cli.config.check import check_train, warnings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.resume import check_resumed, taken_up
from grpo_cli.config.schema import TrainConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.problems import load_problem_set
from grpo_cli.errors import ConfigError
from grpo_cli.launch import start


def run(composed: DictConfig) -> float:
    """Train; the held-out accuracy at the end is what a Hydra sweeper optimises.

    A job of a sweep that starts again is done if it has finished before, else it goes on where it was cut off.
    """
    if in_sweep() and composed.resume.run not in ("never", "auto"):
        raise ConfigError(
            "resume=<run folder> goes on with one run. A sweep goes on with hydra.sweep.dir=<its folder>."
        )
    place_in_sweep(composed)
    config: TrainConfig = to_typed(taken_up(composed, given_keys()), "train")
    check_train(config)
    if in_sweep() or "SLURM_RESTART_COUNT" in os.environ:
        config.resume.run = "auto"  # of a job that was cut off or requeued; without a checkpoint it begins anew
    if config.resume.run != "never":
        for note in check_resumed(config):
            print(f"warning: {note}; from here on it is exact to rounding only", file=sys.stderr)
    if in_sweep() and (objective := earlier_objective(config)) is not None:
        print(f"{config.run.dir} has finished before")
        return objective
    load_problem_set(config.data, config.seed)  # a fault in the data shows before anything heavy is started
    for name, benchmark in config.benchmark.items():
        load_benchmark(name, benchmark)
    for warning in warnings(config, given_keys(), in_slurm_job="SLURM_JOB_ID" in os.environ and not in_sweep()):
        print(f"warning: {warning}", file=sys.stderr)
    run_dir = Path(config.run.dir)
    with held(run_dir, config, lambda: _check_folder(run_dir, config)) as config_file:
        start("train", config_file, config.cluster)
    return json.loads((run_dir / "result.json").read_text())["eval/heldout/avg"]


def _check_folder(run_dir: Path, config: TrainConfig) -> None:
    if config.resume.run == "never" and not is_empty(run_dir):
        raise ConfigError(
            f"The run folder {run_dir} exists, and is never overwritten. Set another run.dir, or go on from its last "
            f"checkpoint with resume={run_dir}."
        )
