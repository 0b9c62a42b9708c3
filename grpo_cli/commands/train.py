"""r1zero train: compose, check, make the run folder, start the ranks."""

import os

from omegaconf import DictConfig

from grpo_cli.commands import learning_run
from grpo_cli.commands.hydra_job import earlier_objective, given_keys, in_sweep
from grpo_cli.config.check import check_train, general_fault, warnings
from grpo_cli.config.schema import TrainConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.problems import load_problem_set
from grpo_cli.errors import ConfigError
from grpo_cli.printing import say


def run(composed: DictConfig) -> float:
    """Train; the held-out accuracy at the end is what a Hydra sweeper optimises.

    A job of a sweep that has finished before is not run again.
    """
    config: TrainConfig = learning_run.settings("train", composed, check_train)
    if in_sweep() and (objective := earlier_objective(config)) is not None:
        print(f"{config.run.dir} has finished before")
        return objective
    problems = load_problem_set(config.data, config.seed)  # a fault in the data shows before anything heavy is started
    if fault := general_fault(problems.train, config):
        raise ConfigError(fault)
    for name, benchmark in config.benchmark.items():
        load_benchmark(name, benchmark)
    for warning in warnings(config, given_keys(), in_slurm_job="SLURM_JOB_ID" in os.environ and not in_sweep()):
        say(f"warning: {warning}")
    return learning_run.run_in_folder("train", config)["eval/heldout/avg"]
