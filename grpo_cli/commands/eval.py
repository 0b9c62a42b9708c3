"""`r1zero eval`: find the model, check and freeze the settings, start the ranks."""

import json
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.commands.hydra_job import needs_new_folder, place_in_sweep
from grpo_cli.commands.sampling_run import set_model_from_checkpoint
from grpo_cli.commands.start_checks import check_start
from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.tasks import EvalTask
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.launch import start
from grpo_cli.runs.folder import new_folder, run_folder_lock
from grpo_cli.runs.resume import check_same_samples


def run(composed: DictConfig) -> float:
    """Evaluate a model. Returns the macro average of the benchmarks, the objective for a Hydra sweeper."""
    place_in_sweep(composed)
    set_model_from_checkpoint(composed)
    config: EvalTask = to_typed(composed, "eval")
    check_settings(config)
    check_start(config, loads_model=config.rescore is None)
    for name, benchmark in config.benchmark.items():
        load_benchmark(name, benchmark)  # raises for faulty data before anything heavy starts
    if needs_new_folder(composed):
        config.run.dir = str(new_folder(Path(config.run.dir)))
    run_dir = Path(config.run.dir)
    folder = run_dir / "eval"
    with run_folder_lock(folder, config, lambda: check_same_samples(config, folder)) as config_file:
        start("eval", config_file, config.cluster)
    return json.loads((run_dir / "eval.json").read_text(encoding="utf-8"))["macro_average"]["avg"]
