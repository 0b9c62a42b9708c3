"""Logs a run's metrics: always to metrics.jsonl, and to the console and Weights & Biases if configured."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TextIO

from rich.console import Console

from grpo_cli.analysis.report import read_metrics
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import SetupError
from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text, read_objects
from grpo_cli.metrics.console import Display
from grpo_cli.metrics.health import Health
from grpo_cli.metrics.metrics import SampleRow
from grpo_cli.metrics.wandb_run import WandbRun


class RunLogger:
    """Logs each step to all sinks with one call; a context manager.

    `<run_dir>/metrics.jsonl` has one line per step: flat keys, `step` first. When a run resumes after `start_step`, the
    rows of later steps are deleted first, because these steps run again. Health findings become messages and W&B
    alerts. W&B never stops a run: its errors become one warning. A full disk does: it raises SetupError.
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
            self._rows = path.open("a", encoding="utf-8")
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
        """Log a step's metrics, and every `samples_every` steps its samples. Steps must be in ascending order."""
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
                with path.open("w", encoding="utf-8") as file:
                    _write(file, "".join(json_text(asdict(sample)) + "\n" for sample in kept))
        findings = self._health.update(row)
        if self._wandb:
            self._wandb.log(step, row, kept, findings)
        if self._display:
            self._display.update(step, row, samples[-1] if samples else None)
        for finding in findings:
            self.message(f"health: step {step}: {finding.text}")

    def message(self, text: str) -> None:
        """Print a line on the console, above the live display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self, failed: bool = False) -> None:
        if self._display:
            self._display.close()
        with suppress(OSError):  # a full disk was reported when the row was written; closing writes again
            self._rows.close()
        if self._wandb:
            self._wandb.close(failed)

    def _samples_path(self, step: int) -> Path:
        return self._samples_dir / f"step_{step:06}.jsonl"

    def _read_samples(self, step: int) -> list[SampleRow]:
        path = self._samples_path(step)
        return [SampleRow(**row) for _, row in read_objects(path)] if path.exists() else []


def cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Delete the rows after `step` and a half-written last line; at step 0, delete all rows.

    Returns the remaining rows.
    """
    if not path.exists():
        return []
    rows = [row for row in read_metrics(path) if step > 0 and row["step"] <= step]
    write_whole(path, "".join(json_text(row) + "\n" for row in rows))
    return rows


def _write(file: TextIO, text: str) -> None:
    """Write and flush to the disk, so that the text survives a power cut."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """A context that turns an OSError into a SetupError which names `path`."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path} cannot be written: {error.strerror}. Free some space there. Then resume=<the run's folder> "
            "resumes from the last checkpoint."
        ) from error
