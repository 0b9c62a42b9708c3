"""r1zero reward-model: compose, check, make the run folder, start the ranks."""

from omegaconf import DictConfig

from grpo_cli.commands import learning_run
from grpo_cli.config.supervised import RewardModelTask
from grpo_cli.data.preferences import load_preferences


def run(composed: DictConfig) -> float:
    """Learn from preferences; the accuracy on held-out pairs at the end is what a Hydra sweeper optimises."""
    config: RewardModelTask = learning_run.settings("reward-model", composed)
    load_preferences(config.data, config.seed)  # a fault in the data shows before anything heavy is started
    return learning_run.run_in_folder("reward-model", config)["eval/heldout/pair_accuracy"]
