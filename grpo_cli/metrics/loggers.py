"""Logs a run's metrics: always to metrics.jsonl, and to the console and the trackers that are configured."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TextIO

from rich.console import Console

from grpo_cli.analysis.report import read_metrics
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import Stopped
from grpo_cli.files import disk_faults, write_whole
from grpo_cli.jsonl import json_text
from grpo_cli.metrics.console import Display
from grpo_cli.metrics.health import Health
from grpo_cli.metrics.metrics import TOTALS, LoggedStep, SampleRow, sample_rows
from grpo_cli.metrics.trackers import open_trackers
from grpo_cli.progress import progress
from grpo_cli.runs.rollouts import FOLDER, KeptGroup, Split, read_step, remove_after, rollout_file, write_groups


class RunLogger:
    """Logs each step to all sinks with one call; a context manager.

    `<run_dir>/metrics.jsonl` has one line per step: flat keys, `step` first; `<run_dir>/rollouts/` has the kept groups.
    When a run resumes after `start_step`, the rows and groups of later steps are deleted first, because these steps run
    again. Health findings become messages, alerts and rows of `health.jsonl`. A tracker never stops a run: its errors
    become one warning. A full disk does, with a SetupError.
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
        self._run_dir = run_dir
        self._console = console
        self._last_step = start_step or -1  # the evaluation before training is step 0
        path = run_dir / "metrics.jsonl"
        with disk_faults(path):
            kept_rows = cut_back(path, start_step)
            cut_back(run_dir / "health.jsonl", start_step)
            self._rows = path.open("a", encoding="utf-8")
        with disk_faults(run_dir / FOLDER):
            remove_after(run_dir, start_step)
        self._totals = {total: sum(row.get(name, 0.0) for row in kept_rows) for total, name in TOTALS.items()}
        self._health = Health(mismatch_limit)
        kept = [LoggedStep(row, self._health.update(row)) for row in kept_rows]
        with self._tracker_progress("starting"):
            self._trackers = open_trackers(
                config,
                run_dir,
                run_name=run_name,
                settings=settings,
                message=self.message,
                start_step=start_step,
                last_step=steps,
            )
            for tracker in self._trackers:
                tracker.resume(kept, self._read_samples)
        self._display = Display(console, title=run_name, steps=steps, start_step=start_step) if config.console else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        failed = error_type is not None and not issubclass(error_type, Stopped)
        uploads = error_type is None and self._config.upload_model
        self.close(failed, self._run_dir / "model" if uploads else None)

    def log(
        self,
        step: int,
        metrics: Mapping[str, float],
        groups: Sequence[KeptGroup] = (),
        values: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        """Log a step's metrics and its kept groups. Steps must be in ascending order.

        Totals of the run are added to the metrics. `values` are shown as histograms where that is possible.
        """
        assert step > self._last_step, f"step {step} is logged after step {self._last_step}"
        self._last_step = step
        row = {"step": step} | {name: float(value) for name, value in metrics.items()}
        for total, name in TOTALS.items():
            if name in row:
                row[total] = self._totals[total] = self._totals[total] + row[name]
        with disk_faults(Path(self._rows.name)):
            _write(self._rows, json_text(row) + "\n")
        for split in Split:
            if of_split := [group for group in groups if group.split is split]:
                path = rollout_file(self._run_dir, split, step)
                with disk_faults(path):
                    write_groups(path, of_split)
        samples = sample_rows(group for group in groups if group.split is Split.train)
        findings = self._health.update(row)
        if findings:
            path = self._run_dir / "health.jsonl"
            with disk_faults(path), path.open("a", encoding="utf-8") as file:
                _write(file, "".join(json_text({"step": step} | asdict(finding)) + "\n" for finding in findings))
        shown = samples if self._has_table(step) else ()
        for tracker in self._trackers:
            tracker.log(LoggedStep(row, findings, shown, values))
        if self._display:
            self._display.update(step, row, samples[-1] if samples else None)
        for finding in findings:
            self.message(f"{'health' if finding.fix else 'note'}: step {step}: {finding.text}")

    def message(self, text: str) -> None:
        """Print a line on the console, above the live display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self, failed: bool = False, model: Path | None = None) -> None:
        """`model` is a folder to upload."""
        if self._display:
            self._display.close()
        with suppress(OSError):  # a full disk was reported when the row was written; closing writes again
            self._rows.close()
        with self._tracker_progress("closing"):
            for tracker in self._trackers:
                tracker.close(failed, model)

    def _tracker_progress(self, verb: str) -> AbstractContextManager:
        names = ", ".join(self._config.trackers)
        return progress(self._console, f"{verb} {names}") if names else nullcontext()

    def _has_table(self, step: int) -> bool:
        return self._config.samples_every > 0 and step % self._config.samples_every == 0

    def _read_samples(self, step: int) -> list[SampleRow]:
        return sample_rows(read_step(self._run_dir, Split.train, step)) if self._has_table(step) else []


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
