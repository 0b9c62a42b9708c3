"""Where a run's metrics go: metrics.jsonl always, the console and Weights & Biases as asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console

from grpo_cli.analysis.report import read_metrics
from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import MODES, tracker_mode, tracker_names
from grpo_cli.errors import SetupError
from grpo_cli.jsonl import json_text, read_objects
from grpo_cli.metrics.console import Display
from grpo_cli.metrics.health import Finding, Health
from grpo_cli.metrics.metrics import SampleRow
from grpo_cli.metrics.run_id import run_id

if TYPE_CHECKING:
    import wandb

SAMPLE_COLUMNS = [field.name for field in fields(SampleRow)]
INIT_TIMEOUT_S = 15  # to reach the W&B server before going on off line
FINISH_TIMEOUT_S = 60  # to upload what is left at the end
READ_TIMEOUT_S = 300  # to read one earlier file
FLUSH_S = 1.0  # W&B's own file is so far behind at most, where the process is killed


class RunLogger:
    """One call a step for every sink; a context manager.

    `<run_dir>/metrics.jsonl` holds a line a step: flat keys, `step` first. A run that resumes after
    `start_step` loses the rows of later steps first: it is about to do them again. What its metrics tell of the
    run's health is a message and a W&B alert. W&B never stops a run; whatever it raises becomes one warning.
    A disk that is full does: `SetupError`.
    """

    def __init__(
        self,
        config: LoggerConfig,
        run_dir: Path,
        *,
        run_name: str,
        steps: int,
        settings: Mapping[str, Any],
        console: Console,
        start_step: int = 0,
        mismatch_limit: float | None = None,
    ) -> None:
        self._config = config
        self._samples_dir = run_dir / "samples"
        self._console = console
        self._last_step = start_step or -1  # the evaluation before training is step 0
        path = run_dir / "metrics.jsonl"
        with _disk_faults(path):
            kept_rows = cut_back(path, start_step)
            self._rows = path.open("a")
        self._health = Health(mismatch_limit)
        kept = [(row, self._health.update(row)) for row in kept_rows]
        self._wandb = (
            WandbRun(config, run_dir, run_name=run_name, settings=settings, message=self.message)
            if config.wandb
            else None
        )
        if self._wandb:
            self._wandb.resume(kept, self._read_samples)
        self._display = Display(console, title=run_name, steps=steps, start_step=start_step) if config.console else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self.close(failed=error_type is not None)

    def log(self, step: int, metrics: Mapping[str, float], samples: Sequence[SampleRow] = ()) -> None:
        """Writes the row of `step`, each once and in order; keeps samples every `samples_every` steps."""
        assert step > self._last_step, f"step {step} is logged after step {self._last_step}"
        self._last_step = step
        row = {"step": step} | {name: float(value) for name, value in metrics.items()}
        with _disk_faults(Path(self._rows.name)):
            _write(self._rows, json_text(row) + "\n")
        kept = samples if self._config.samples_every and step % self._config.samples_every == 0 else ()
        if kept:
            path = self._samples_path(step)
            with _disk_faults(path):
                path.parent.mkdir(exist_ok=True)
                with path.open("w") as file:
                    _write(file, "".join(json_text(asdict(sample)) + "\n" for sample in kept))
        findings = self._health.update(row)
        if self._wandb:
            self._wandb.log(step, row, kept, findings)
        if self._display:
            self._display.update(step, row, samples[-1] if samples else None)
        for finding in findings:
            self.message(f"health: step {step}: {finding.text}")

    def message(self, text: str) -> None:
        """A line on the console, above the live display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self, failed: bool = False) -> None:
        if self._display:
            self._display.close()
        with suppress(OSError):  # a full disk was told by the row that did not fit, and it is tried again here
            self._rows.close()
        if self._wandb:
            self._wandb.close(failed)

    def _samples_path(self, step: int) -> Path:
        return self._samples_dir / f"step_{step:06}.jsonl"

    def _read_samples(self, step: int) -> list[SampleRow]:
        path = self._samples_path(step)
        return [SampleRow(**row) for _, row in read_objects(path)] if path.exists() else []


def cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the rows after `step` and a half-written last line; at step 0 nothing was done that is kept.

    Returns the rows that are left.
    """
    if not path.exists():
        return []
    rows = [row for row in read_metrics(path) if step > 0 and row["step"] <= step]
    kept = path.with_suffix(".tmp")
    with kept.open("w") as file:
        _write(file, "".join(json_text(row) + "\n" for row in rows))
    kept.replace(path)
    return rows


def _write(file: TextIO, text: str) -> None:
    """Writes what is still there after a power cut."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """Tells in plain words that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path} cannot be written: {error.strerror}. Make room there; the same command with resume=auto then "
            "goes on from the last checkpoint."
        ) from error


class WandbRun:
    """A W&B run with its files in `<run_dir>/wandb`, on line where it can be.

    It works in a thread of its own, since W&B makes a table wait 20 s for a server that is gone. Nothing that it
    raises leaves this class: the first fault is told, and ends the reporting.
    """

    def __init__(
        self,
        config: LoggerConfig,
        run_dir: Path,
        *,
        run_name: str,
        settings: Mapping[str, Any],
        message: Callable[[str], None],
        job_type: str = "train",
    ) -> None:
        self._folder = run_dir / "wandb"
        self._folder.mkdir(exist_ok=True)
        self._message = message
        self._ended = False
        self._held: Container[float] = ()  # the steps that W&B has from an earlier start
        self._held_alerts: Container[str] = ()
        self._worker = ThreadPoolExecutor(max_workers=1)
        # Else tables are staged in the home directory, and the run folder alone cannot be synced.
        os.environ.setdefault("WANDB_DATA_DIR", str(self._folder.absolute()))
        # Else a process ends 20 s late on machines that drop what is sent to W&B.
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
            message(f"W&B is off line; to upload this run: wandb sync {self._folder}/offline-run-*")
        elif self._run.url:
            message(f"W&B: {self._run.url}")

    def resume(
        self,
        kept: Sequence[tuple[Mapping[str, float], Sequence[Finding]]],
        read_samples: Callable[[int], Sequence[SampleRow]],
    ) -> None:
        """Logs no step that W&B already has, from here on, and those of the rows kept that it lost."""
        self._worker.submit(self._resume, kept, read_samples)

    def log(
        self, step: int, row: Mapping[str, float], samples: Sequence[SampleRow], findings: Sequence[Finding] = ()
    ) -> None:
        self._worker.submit(self._log, step, row, samples, findings)

    def close(self, failed: bool) -> None:
        finished = self._worker.submit(self._finish, failed)
        try:
            finished.result(FINISH_TIMEOUT_S)
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
        mode = tracker_mode(config)
        if (
            mode == "auto" and (of_file := wandb.setup().settings.mode) in MODES
        ):  # by `wandb disabled` or `wandb offline`
            mode = "auto" if of_file == "online" else MODES[of_file]
        if mode not in ("auto", "online"):
            return wandb.init(mode=mode, **options)
        try:
            if wandb.login(prompt=False, verify=False):
                return wandb.init(mode="online", resume="allow", **options)
            if mode == "online":
                raise wandb.UsageError("no API key is configured; `wandb login` stores one.")
        except Exception as error:
            self._message(f"W&B cannot be used on line: {_first_line(error)}")
            _end_service()  # the failed attempt still holds the run's id
            wandb.setup(settings=quiet)
        return wandb.init(mode="offline", **options)

    def _resume(
        self,
        kept: Sequence[tuple[Mapping[str, float], Sequence[Finding]]],
        read_samples: Callable[[int], Sequence[SampleRow]],
    ) -> None:
        if self._ended:
            return
        try:
            if self._run.offline:
                self._held, self._held_alerts = read_wandb(self._earlier_files)
            else:
                self._held = range(self._run.starting_step)  # the server goes on after its last step
        except Exception as error:
            self._message(
                f"W&B's earlier files cannot be read, and may hold steps that are logged again: {_first_line(error)}"
            )
            return
        for row, findings in kept:
            step = int(row["step"])
            if step not in self._held:
                samples: Sequence[SampleRow] = ()
                with suppress(Exception):  # a power cut may have taken them
                    samples = read_samples(step)
                self._log(step, row, samples, findings)

    def _log(
        self, step: int, row: Mapping[str, float], samples: Sequence[SampleRow], findings: Sequence[Finding]
    ) -> None:
        import wandb

        if self._ended or step in self._held:
            return
        if samples:
            data = [list(astuple(sample)) for sample in samples]
            with suppress(Exception):  # a table fails while the server is away; numbers are kept for its return
                self._run.log({"samples": wandb.Table(SAMPLE_COLUMNS, data)}, step=step, commit=False)
        try:
            for finding in findings:  # before its row, so that a step that W&B has lacks no alert
                text = f"step {step}: {finding.text}"
                if text not in self._held_alerts:
                    self._run.alert(finding.title, text, wandb.AlertLevel.WARN)
            self._run.log(dict(row), step=step, commit=True)
        except Exception as error:
            self._give_up(error)

    def _finish(self, failed: bool) -> None:
        if not self._ended:
            self._run.finish(exit_code=int(failed))

    def _give_up(self, error: Exception) -> None:
        if self._ended:
            return
        self._ended = True
        self._message(
            f"W&B failed: {_first_line(error)}\nThe run goes on, and metrics.jsonl has every metric; "
            f"to upload what W&B has: wandb sync {self._folder}/*run-*"
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
    """The steps and the texts of the alerts that W&B's own files hold, as far as each can be read."""
    steps, alerts = set(), set()
    for path in files:
        command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", path]
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
    """Kills W&B's own process, which may wait for a server without end; its files are at most `FLUSH_S` behind."""
    import psutil
    import wandb

    for child in psutil.Process().children():
        if child.name() == "wandb-core":
            child.kill()
    with suppress(Exception, SystemExit):  # W&B would leave with the status of its process
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
