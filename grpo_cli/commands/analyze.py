"""`r1zero analyze`: find the model, check and freeze the settings, start the ranks."""

import json
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.commands.hydra_job import needs_new_folder, place_in_sweep
from grpo_cli.commands.sampling_run import set_model_from_checkpoint
from grpo_cli.commands.start_checks import check_start
from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.tasks import AnalyzeTask
from grpo_cli.data.problems import load_problems
from grpo_cli.launch import start
from grpo_cli.runs.folder import new_folder, run_folder_lock
from grpo_cli.runs.resume import check_same_samples


def run(composed: DictConfig) -> float:
    """Analyze a base model. Returns the best template's pass@1, the objective for a Hydra sweeper."""
    place_in_sweep(composed)
    set_model_from_checkpoint(composed)
    config: AnalyzeTask = to_typed(composed, "analyze")
    check_settings(config)
    check_start(config)
    load_problems(config.data, config.data.name, "data")  # raises for faulty data before anything heavy starts
    if needs_new_folder(composed):
        config.run.dir = str(new_folder(Path(config.run.dir)))
    run_dir = Path(config.run.dir)
    folder = run_dir / "analyze"
    with run_folder_lock(folder, config, lambda: check_same_samples(config, folder)) as config_file:
        start("analyze", config_file, config.cluster)
        if config.analyze.judge is not None:
            start("judge", config_file, config.cluster)
    templates = json.loads((run_dir / "analyze.json").read_text(encoding="utf-8"))["templates"]
    return max(metrics["avg"] for metrics in templates.values())
