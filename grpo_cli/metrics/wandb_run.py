"""A run in Weights & Biases: the only place that imports wandb."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_cli.analysis.report import plot_learning_curve
from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import MODES, tracker_mode, tracker_names
from grpo_cli.metrics.metrics import LoggedStep, SampleRow
from grpo_cli.metrics.run_id import run_id

if TYPE_CHECKING:
    import wandb

SAMPLE_COLUMNS = [field.name for field in fields(SampleRow)]
INIT_TIMEOUT_S = 15  # to reach the W&B server before a run is logged offline
FINISH_TIMEOUT_S = 60  # to upload what is left at the end
UPLOAD_TIMEOUT_S = 6 * 3600  # to upload the model
READ_TIMEOUT_S = 300  # to read one earlier file
FLUSH_S = 1.0  # if the process is killed, W&B's own file lacks at most these last seconds


class WandbRun:
    """A W&B run with its files in `<run_dir>/wandb`, online if possible.

    It logs in a separate thread, because W&B blocks for 20 s on a table if the server is unreachable. No error of W&B
    leaves this class: the first one is reported, and then logging to W&B ends.
    """

    def __init__(
        self,
        config: LoggerConfig,
        run_dir: Path,
        *,
        run_name: str,
        settings: Mapping[str, Any],
        message: Callable[[str], None],
        last_step: int | None = None,
        job_type: str = "train",
    ) -> None:
        self._metrics_jsonl = run_dir / "metrics.jsonl"
        self._last_step = last_step  # the learning curve is logged with it
        self._folder = run_dir / "wandb"
        self._folder.mkdir(exist_ok=True)
        self._message = message
        self._ended = False
        self._logged_steps: Container[float] = ()  # that W&B has from an earlier start
        self._logged_alerts: Container[str] = ()
        self._worker = ThreadPoolExecutor(max_workers=1)
        # Otherwise W&B writes tables to the home directory, and the run folder alone cannot be synced.
        os.environ.setdefault("WANDB_DATA_DIR", str(self._folder.absolute()))
        # Otherwise the process ends 20 s late on machines whose network drops what is sent to W&B.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        id = run_id(run_dir)
        self._earlier_files = sorted(self._folder.glob(f"*run-*-{id}/run-{id}.wandb"))
        options = {
            "dir": run_dir,
            "id": id,
            "config": dict(settings),
            **tracker_names(config, run_name, job_type),
        }
        try:
            self._run = self._start(config, options)
            if self._run.disabled:
                self._ended = True
                message("W&B is disabled, by WANDB_MODE, WANDB_DISABLED or `wandb disabled`: nothing is logged there.")
                return
            self._run.define_metric("*", step_metric="step")
        except Exception as error:
            self._give_up(error)
            return
        if self._run.offline:
            message(f"W&B is offline. To upload this run: wandb sync {self._folder}/offline-run-*")
        elif self._run.url:
            message(f"W&B: {self._run.url}")

    def resume(self, kept: Sequence[LoggedStep], read_samples: Callable[[int], Sequence[SampleRow]]) -> None:
        """From here on, do not log steps that W&B already has; and log those rows of `kept` that it lacks."""
        self._worker.submit(self._resume, kept, read_samples)

    def log(self, step: LoggedStep) -> None:
        self._worker.submit(self._log, step)

    def close(self, failed: bool, model: Path | None) -> None:
        if model and not self._ended:
            self._message("W&B: uploading the model")
        finished = self._worker.submit(self._finish, failed, model)
        try:
            finished.result(UPLOAD_TIMEOUT_S if model else FINISH_TIMEOUT_S)
        except Exception as error:
            self._give_up(error)
        self._worker.shutdown()

    def _start(self, config: LoggerConfig, options: dict[str, Any]) -> "wandb.Run":
        import wandb

        quiet = wandb.Settings(
            silent=not config.verbose,
            console="off",
            init_timeout=INIT_TIMEOUT_S,
            x_transaction_log_flush_interval=FLUSH_S,
        )
        wandb.setup(settings=quiet)
        mode: Any = tracker_mode(config)
        if (
            mode == "auto" and (file_mode := wandb.setup().settings.mode) in MODES
        ):  # by `wandb disabled` or `wandb offline`
            mode = "auto" if file_mode == "online" else MODES[file_mode]
        if mode not in ("auto", "online"):
            return wandb.init(mode=mode, **options)
        try:
            if wandb.login(prompt=False, verify=False):
                return wandb.init(mode="online", resume="allow", **options)
            if mode == "online":
                raise wandb.UsageError("no API key is configured; `wandb login` stores one.")
        except Exception as error:
            self._message(f"W&B cannot be used online: {_first_line(error)}")
            _end_service()  # the failed attempt still uses the run's id
            wandb.setup(settings=quiet)
        return wandb.init(mode="offline", **options)

    def _resume(self, kept: Sequence[LoggedStep], read_samples: Callable[[int], Sequence[SampleRow]]) -> None:
        if self._ended:
            return
        try:
            if self._run.offline:
                self._logged_steps, self._logged_alerts = read_wandb(self._earlier_files)
            else:
                self._logged_steps = range(self._run.starting_step)  # the server continues after its last step
        except Exception as error:
            self._message(
                f"W&B's earlier files cannot be read, so some steps may be logged twice: {_first_line(error)}"
            )
            return
        for step in kept:
            if step.number not in self._logged_steps:
                with suppress(Exception):  # samples may be lost after a power cut
                    step = replace(step, samples=read_samples(step.number))
                self._log(step)

    def _log(self, step: LoggedStep) -> None:
        import wandb

        number = step.number
        if self._ended or number in self._logged_steps:
            return
        if step.samples:
            data = [list(astuple(sample)) for sample in step.samples]
            with suppress(Exception):  # tables fail while the server is unreachable; numbers are sent later
                self._run.log({"samples": wandb.Table(SAMPLE_COLUMNS, data)}, step=number, commit=False)
        if number == self._last_step and "length/mean" in step.row:  # other runs than RL have no curve
            with suppress(Exception):  # as for tables
                plot_learning_curve(self._metrics_jsonl, png := self._folder / "learning_curve.png")
                self._run.log({"learning_curve": wandb.Image(str(png))}, step=number, commit=False)
        try:
            for finding in step.findings:  # before the row, so that every step that W&B has also has its alerts
                text = f"step {number}: {finding.text}"
                if finding.fix and text not in self._logged_alerts:
                    self._run.alert(finding.name, text, wandb.AlertLevel.WARN)
            histograms = {f"histogram/{name}": wandb.Histogram(of_name) for name, of_name in step.values.items()}
            self._run.log({**step.row, **histograms}, step=number, commit=True)
        except Exception as error:
            self._give_up(error)

    def _finish(self, failed: bool, model: Path | None) -> None:
        if self._ended:
            return
        if model:
            import wandb

            artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
            artifact.add_dir(str(model), policy="immutable")  # not copied
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=int(failed))

    def _give_up(self, error: Exception) -> None:
        if self._ended:
            return
        self._ended = True
        self._message(
            f"W&B failed: {_first_line(error)}\nThe run continues, and metrics.jsonl has every metric. "
            f"To upload what W&B has: wandb sync {self._folder}/*run-*"
        )
        _end_service()


def wandb_login(*, verify: bool) -> bool:
    """Whether W&B has an API key; `verify` also checks it with the server.

    Raises W&B's own errors if the key is malformed or rejected, or if the server cannot be reached.
    """
    import wandb

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        wandb.setup(settings=wandb.Settings(silent=True))
        return wandb.login(prompt=False, verify=verify)
    finally:
        wandb.teardown()


def read_wandb(files: Sequence[Path]) -> tuple[set[float], set[str]]:
    """The steps and the texts of the alerts in W&B's own files, as far as each can be read."""
    steps, alerts = set(), set()
    for path in files:
        command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=READ_TIMEOUT_S)
        if done.returncode:
            raise OSError(f"{path}: {done.stderr.strip()}")
        for record in map(json.loads, filter(None, done.stdout.split("\n"))):
            if record["type"] == "history":
                steps.add(record["history"]["item"]["step"])
            elif record["type"] == "alert":
                alerts.add(record["alert"]["text"])
    return steps, alerts


def _end_service() -> None:
    """Kill W&B's own process, which may wait for a server forever. Its files lack at most `FLUSH_S` seconds."""
    import psutil
    import wandb

    for child in psutil.Process().children():
        if child.name() == "wandb-core":
            child.kill()
    with suppress(Exception, SystemExit):  # W&B would exit with the status of its process
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
