"""A run in TensorBoard: the only place that imports it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grpo_cli.jsonl import json_text
from grpo_cli.metrics.metrics import LoggedStep


class TensorBoardRun:
    """Event files in `<run_dir>/tensorboard`; each step is written before the next.

    A run that resumes after `start_step` hides the events of later steps, because these steps run again.
    """

    def __init__(
        self, run_dir: Path, settings: Mapping[str, Any], message: Callable[[str], None], start_step: int
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / "tensorboard"
        self.has_earlier_steps = any(folder.glob("events.*"))
        first_step = start_step + 1 if start_step else 0  # the evaluation before training is step 0
        self._writer = SummaryWriter(str(folder), purge_step=first_step if self.has_earlier_steps else None)
        if not self.has_earlier_steps:
            self._writer.add_text("settings", f"```json\n{json_text(settings, indent=1)}\n```", 0)
        message(f"TensorBoard: tensorboard --logdir {run_dir.parent}")

    def log(self, step: LoggedStep) -> None:
        import numpy as np

        for name, value in step.row.items():
            if name != "step":
                self._writer.add_scalar(name, value, step.number)
        for name, values in step.values.items():
            self._writer.add_histogram(f"histogram/{name}", np.array(values), step.number)
        for finding in step.findings:
            self._writer.add_text("health", finding.text, step.number)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
