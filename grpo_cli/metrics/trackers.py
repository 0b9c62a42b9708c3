"""The services that show a run's metrics, behind one interface."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from grpo_cli.choices import TrackerName
from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics.metrics import LoggedStep, SampleRow
from grpo_cli.metrics.tensorboard_run import TensorBoardRun
from grpo_cli.metrics.trackio_run import TrackioRun
from grpo_cli.metrics.wandb_run import WandbRun


class Tracker(Protocol):
    """None of its methods raises an error: a service that fails does not stop the run."""

    def resume(self, kept: Sequence[LoggedStep], read_samples: Callable[[int], Sequence[SampleRow]]) -> None:
        """Log those of the earlier steps that the tracker lacks. Called before `log`."""

    def log(self, step: LoggedStep) -> None: ...

    def close(self, failed: bool, model: Path | None) -> None:
        """Write what is left. `model` is a folder to upload, if the tracker can do that."""


class Guarded:
    """A simple tracker whose first error becomes a message; then logging to it ends."""

    def __init__(
        self, name: str, start: Callable[[], TensorBoardRun | TrackioRun], message: Callable[[str], None]
    ) -> None:
        self._name = name
        self._message = message
        self._tracker: TensorBoardRun | TrackioRun | None = None
        with self._guard():
            self._tracker = start()

    def resume(self, kept: Sequence[LoggedStep], read_samples: Callable[[int], Sequence[SampleRow]]) -> None:
        if self._tracker and not self._tracker.has_earlier_steps:
            for step in kept:
                self.log(step)

    def log(self, step: LoggedStep) -> None:
        with self._guard():
            if self._tracker:
                self._tracker.log(step)

    def close(self, failed: bool, model: Path | None) -> None:
        with self._guard():
            if self._tracker:
                self._tracker.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._tracker = None
            first_line = str(error).partition("\n")[0] or type(error).__name__
            self._message(f"{self._name} failed: {first_line}\nThe run continues, and metrics.jsonl has every metric.")


def open_trackers(
    config: LoggerConfig,
    run_dir: Path,
    *,
    run_name: str,
    settings: Mapping[str, Any],
    message: Callable[[str], None],
    start_step: int = 0,
    last_step: int | None = None,
    job_type: str = "train",
) -> list[Tracker]:
    """The trackers of `logger.trackers`, for a run that starts or resumes after `start_step`."""
    options: dict[str, Any] = {
        "run_name": run_name, "settings": settings, "message": message, "job_type": job_type,
    }  # fmt: skip
    start: dict[TrackerName, Callable[[], Tracker]] = {
        TrackerName.wandb: lambda: WandbRun(config, run_dir, last_step=last_step, **options),
        TrackerName.tensorboard: lambda: Guarded(
            "TensorBoard", lambda: TensorBoardRun(run_dir, settings, message, start_step), message
        ),
        TrackerName.trackio: lambda: Guarded("Trackio", lambda: TrackioRun(config, run_dir, **options), message),
    }
    return [start[name]() for name in dict.fromkeys(config.trackers)]
