"""`r1zero sample`: find the model, check and freeze the settings, start the ranks."""

import json
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.commands.hydra_job import needs_new_folder, place_in_sweep
from grpo_cli.commands.sampling_run import set_model_from_checkpoint
from grpo_cli.commands.start_checks import check_start
from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.tasks import SampleTask
from grpo_cli.data.problems import load_problem_set
from grpo_cli.launch import start
from grpo_cli.rejection.traces import check_overwrite
from grpo_cli.runs.folder import new_folder, run_folder_lock
from grpo_cli.runs.resume import check_same_samples


def run(composed: DictConfig) -> float:
    """Sample responses and keep the good ones. Returns the share that is kept, the objective for a Hydra sweeper."""
    place_in_sweep(composed)
    set_model_from_checkpoint(composed)
    config: SampleTask = to_typed(composed, "sample")
    check_settings(config)
    check_start(config)
    load_problem_set(config.data, config.seed)  # raises for faulty data before anything heavy starts
    if needs_new_folder(composed):
        config.run.dir = str(new_folder(Path(config.run.dir)))
    run_dir = Path(config.run.dir)
    with run_folder_lock(run_dir / "sample", config, lambda: _check_folder(run_dir / "sample", config)) as config_file:
        start("sample", config_file, config.cluster)
    counts = json.loads((run_dir / "sample.json").read_text(encoding="utf-8"))["yield"]
    return counts["kept"] / counts["num_samples"]


def _check_folder(folder: Path, config: SampleTask) -> None:
    check_same_samples(config, folder)
    check_overwrite(config)
