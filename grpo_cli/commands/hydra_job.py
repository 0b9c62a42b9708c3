"""A command as one job of a Hydra sweep.

A job has the folder `<sweep>/<number>_<its swept settings>`. Besides the files of its command, it contains `job.json`
with its swept settings (`swept`) and its result (`objective`), and `error.txt` with the reason if it failed.
"""

import json
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from grpo_cli.analysis.report import read_result
from grpo_cli.analysis.sweep import last_error
from grpo_cli.config.grammar import escaped, quoted
from grpo_cli.config.tracker import tracker_group
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DataError, R1ZeroError, Stopped, TrainingError
from grpo_cli.jsonl import json_text
from grpo_cli.launch.slurm_environment import remove_job_variables
from grpo_cli.printing import say
from grpo_cli.progress import duration
from grpo_cli.secret import mapped, masked

MAX_NAME = 100  # characters in the name of a job's folder


class Sweep(Callback):
    """Hydra's callback in the process that starts a sweep: it passes settings of the whole sweep on to the jobs."""

    folder: ClassVar[Path | None] = None  # of the sweep that this process has started
    num_jobs: ClassVar[int | None] = None  # if known
    started: ClassVar[float] = 0.0

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Give all jobs the same sweep folder, even if they vary its name, and the keys that they do not vary."""
        Sweep.folder = Path(config.hydra.sweep.dir)
        if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
            remove_job_variables()
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        constant = [override.key_or_group for override in overrides if not override.is_sweep_override()]
        Sweep.started = time.monotonic()
        swept = [override for override in overrides if override.is_sweep_override()]
        has_pattern = any(isinstance(override.value(), Glob) for override in swept)  # only Hydra knows what it matches
        runs_all = config.hydra.sweeper._target_.endswith(".BasicSweeper") and not has_pattern
        Sweep.num_jobs = math.prod(len(list(o.sweep_string_iterator())) for o in swept) if runs_all else None
        with open_dict(config.hydra):
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir={quoted(str(Sweep.folder))}",
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quoted, constant))}]",
            ]

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Mask secrets in Hydra's record of the command line."""
        file = Path(config.hydra.sweep.dir) / "multirun.yaml"
        if file.is_file():
            file.write_text(masked(file.read_text(encoding="utf-8")), encoding="utf-8")


def job_line(number: int, name: str) -> str | None:
    """Which job of the sweep starts, counted from 0, and the time left; None if the number of jobs is not known."""
    if Sweep.num_jobs is None:
        return None
    seconds = time.monotonic() - Sweep.started
    left = f", {duration(seconds / number * (Sweep.num_jobs - number))} left" if number else ""
    return f"job {number + 1} of {Sweep.num_jobs}: {name}{left}"


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
    """Run one job. Returns its objective, and saves it in job.json.

    The text of an error goes to error.txt, and its last line is raised. If the job finished in an earlier start, its
    record stays even if it fails now.
    """
    folder = _job_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if line := job_line(HydraConfig.get().job.num, folder.name):
        say(line)
    record = {"swept": mapped(_swept(), masked)}
    if not (folder / "job.json").exists():
        (folder / "job.json").write_text(json_text(record), encoding="utf-8")
    try:
        objective = run(composed)
    except Stopped as stop:  # the whole sweep stops
        say(stop)
        raise SystemExit(stop.exit_status) from None
    except Exception as error:
        text = str(error) if isinstance(error, R1ZeroError) else traceback.format_exc()
        if "objective" not in json.loads((folder / "job.json").read_text(encoding="utf-8")):
            (folder / "error.txt").write_text(masked(f"{text}\n"), encoding="utf-8")
        message = f"{folder.name} failed: {last_error(text)}"
        say(message)  # Hydra reports it only after all jobs
        raise TrainingError(message) from None
    (folder / "job.json").write_text(json_text(record | {"objective": objective}), encoding="utf-8")
    (folder / "error.txt").unlink(missing_ok=True)
    return objective


def earlier_objective(config: TrainConfig) -> float | None:
    """The final held-out accuracy of this run, if it finished in an earlier start; otherwise None."""
    try:
        result = read_result(Path(config.run.dir))
    except DataError as error:
        say(f"warning: {error} The run resumes from its last checkpoint.")
        return None
    return result["eval/heldout/avg"] if result and result["step"] == config.steps else None


def needs_new_folder(composed: DictConfig) -> bool:
    """Whether the run folder is named by the time of the start, as by default, so that each start needs its own."""
    resumes = "resume" in composed and composed.resume.run != "never"
    return not resumes and "${now:" in OmegaConf.to_yaml(composed.run, resolve=False)


def given_keys() -> list[str]:
    """The keys and groups on the command line; a `~` marks one that it removes."""
    return [override.split("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]


def folder_name(number: int, swept: Mapping[str, str]) -> str:
    """The name of a job's folder: its number and swept settings, without characters that are special in a shell.

    >>> folder_name(3, {"algorithm.epsilon": "0.1", "benchmark": "[aime24,amc]"})
    '3_epsilon-0.1_benchmark-aime24-amc'
    """
    parts = [f"{key.rsplit('.', 1)[-1]}-{value.strip('[]')}" for key, value in swept.items()]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join([str(number), *parts]))[:MAX_NAME]


def _job_folder() -> Path:
    """The absolute path of this job's folder. Its number makes it unique."""
    job = HydraConfig.get()
    return Path(job.sweep.dir).absolute() / folder_name(job.job.num, mapped(_swept(), masked))


def _swept() -> dict[str, str]:
    """The settings that the sweep varies, with this job's values."""
    job = HydraConfig.get()
    constant = job.job.config.override_dirname.exclude_keys
    overrides = OverridesParser.create().parse_overrides(list(job.overrides.task))
    swept = {override.key_or_group: override for override in overrides if override.key_or_group not in constant}
    # Texts without Hydra's quotes.
    return {
        key: value if isinstance(value := override.value(), str) else override.get_value_element_as_str()
        for key, override in swept.items()
    }
