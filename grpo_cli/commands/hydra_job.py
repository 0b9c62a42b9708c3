"""What the commands that compose a run share: their place in a sweep.

A job of a sweep has the folder `<sweep>/<number>_<what it varies>`. Beside what its command writes, `job.json` there
keeps what the sweep gave it (`swept`) and what came out (`objective`); `error.txt` says why it failed.
"""

import json
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from grpo_cli.analysis.report import read_result
from grpo_cli.analysis.sweep import last_error
from grpo_cli.config.grammar import escaped, quoted
from grpo_cli.config.tracker import tracker_group
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DataError, R1ZeroError, Stopped, TrainingError
from grpo_cli.jsonl import json_text
from grpo_cli.launch.outer_job import leave_job
from grpo_cli.printing import say
from grpo_cli.secret import mapped, masked

MAX_NAME = 100  # characters in the name of a job's folder


class Sweep(Callback):
    """Hydra's callback, in the process that starts a sweep: it tells the jobs what none of them can know alone."""

    folder: ClassVar[Path | None] = None  # of the sweep that this process has started

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Give all jobs one folder, also where they vary its name, and the keys that they have in common."""
        Sweep.folder = Path(config.hydra.sweep.dir)
        if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
            leave_job()
        constant = [
            override.key_or_group
            for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
            if not override.is_sweep_override()
        ]
        with open_dict(config.hydra):
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir={quoted(str(Sweep.folder))}",
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quoted, constant))}]",
            ]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Take secrets off Hydra's own record of the command line."""
        file = Path(config.hydra.sweep.dir) / "multirun.yaml"
        if file.is_file():
            file.write_text(masked(file.read_text(encoding="utf-8")), encoding="utf-8")


def in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def place_in_sweep(composed: DictConfig) -> None:
    """Give a job of a sweep its own run folder, and the sweep's name as its W&B group."""
    if in_sweep():
        composed.run.dir = str(_job_folder())
        composed.logger.group = composed.logger.group or escaped(
            tracker_group() or Path(HydraConfig.get().sweep.dir).name
        )


def run_in_sweep(run: Callable[[DictConfig], float], composed: DictConfig) -> float:
    """The objective of one job, kept in its folder. A fault is kept there too, and raised in short.

    The record of a job that has finished stays as it is, whatever becomes of it in a sweep that starts again.
    """
    folder = _job_folder()
    folder.mkdir(parents=True, exist_ok=True)
    record = {"swept": mapped(_swept(), masked)}
    if not (folder / "job.json").exists():
        (folder / "job.json").write_text(json_text(record))
    try:
        objective = run(composed)
    except Stopped as stop:  # which is meant for the whole sweep
        say(stop)
        raise SystemExit(stop.exit_status) from None
    except Exception as error:
        text = str(error) if isinstance(error, R1ZeroError) else traceback.format_exc()
        if "objective" not in json.loads((folder / "job.json").read_text()):
            (folder / "error.txt").write_text(masked(f"{text}\n"), encoding="utf-8")
        fault = f"{folder.name} failed: {last_error(text)}"
        say(fault)  # Hydra tells of it only when all jobs are done
        raise TrainingError(fault) from None
    (folder / "job.json").write_text(json_text(record | {"objective": objective}))
    (folder / "error.txt").unlink(missing_ok=True)
    return objective


def earlier_objective(config: TrainConfig) -> float | None:
    """The held-out accuracy that this job of a sweep reached in an earlier start; None where it did not finish."""
    try:
        result = read_result(Path(config.run.dir))
    except DataError as error:
        say(f"warning: {error} The job goes on from its last checkpoint.")
        return None
    return result["eval/heldout/avg"] if result and result["step"] == config.steps else None


def given_keys() -> list[str]:
    """The keys and groups that stand on the command line."""
    return [override.split("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]


def folder_name(number: int, swept: Mapping[str, str]) -> str:
    """The number of a job and what it varies, in characters that no shell takes for its own.

    >>> folder_name(3, {"algorithm.epsilon": "0.1", "benchmark": "[aime24,amc]"})
    '3_epsilon-0.1_benchmark-aime24-amc'
    """
    parts = [f"{key.rsplit('.', 1)[-1]}-{value.strip('[]')}" for key, value in swept.items()]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join([str(number), *parts]))[:MAX_NAME]


def _job_folder() -> Path:
    """Absolute. The number alone keeps two jobs apart."""
    job = HydraConfig.get()
    return Path(job.sweep.dir).absolute() / folder_name(job.job.num, mapped(_swept(), masked))


def _swept() -> dict[str, str]:
    """What the sweep gave this job, without what it gave to all."""
    job = HydraConfig.get()
    constant = job.job.config.override_dirname.exclude_keys
    overrides = OverridesParser.create().parse_overrides(list(job.overrides.task))
    swept = {override.key_or_group: override for override in overrides if override.key_or_group not in constant}
    # As it was meant where it is text, without Hydra's quotes.
    return {
        key: value if isinstance(value := override.value(), str) else override.get_value_element_as_str()
        for key, override in swept.items()
    }
