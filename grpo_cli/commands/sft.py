"""`r1zero sft`: check the settings, create the run folder, start the ranks."""

from omegaconf import DictConfig

from grpo_cli.commands import learning_run
from grpo_cli.commands.data_check import check_demonstrations
from grpo_cli.config.supervised import SFTTask
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.demonstrations import load_demonstrations


def run(composed: DictConfig) -> float:
    """Fine-tune on demonstrations. Returns minus the final held-out loss, the objective for a Hydra sweeper."""
    config: SFTTask = learning_run.settings("sft", composed)
    # Raises for faulty data before anything heavy starts.
    check_demonstrations(config, load_demonstrations(config.data, config.seed))
    for name, benchmark in config.benchmark.items():
        load_benchmark(name, benchmark)
    return -learning_run.run_in_folder("sft", config, composed)["eval/heldout/loss"]
