"""`r1zero reward-model`: check the settings, create the run folder, start the ranks."""

from omegaconf import DictConfig

from grpo_cli.commands import learning_run
from grpo_cli.commands.data_check import check_preferences
from grpo_cli.config.supervised import RewardModelTask
from grpo_cli.data.preferences import load_preferences


def run(composed: DictConfig) -> float:
    """Train on pairs. Returns the final accuracy on held-out pairs, the objective for a Hydra sweeper."""
    config: RewardModelTask = learning_run.settings("reward-model", composed)
    # Raises for faulty data before anything heavy starts.
    check_preferences(config, load_preferences(config.data, config.seed))
    return learning_run.run_in_folder("reward-model", config, composed)["eval/heldout/pair_accuracy"]
