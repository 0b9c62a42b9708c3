"""A run in Trackio: the only place that imports trackio."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import tracker_names
from grpo_cli.metrics.metrics import LoggedStep
from grpo_cli.metrics.run_id import run_id

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # if one is set, Trackio logs there


class TrackioRun:
    """A run in Trackio's local database, or in the Space or server that Trackio's environment variables name.

    In the local database, a resumed run replaces its earlier one, so that it has each step once. A run that is
    elsewhere cannot be deleted: steps that run again are there twice.
    """

    def __init__(
        self,
        config: LoggerConfig,
        run_dir: Path,
        *,
        run_name: str,
        settings: Mapping[str, Any],
        message: Callable[[str], None],
        job_type: str,
    ) -> None:
        import trackio

        names = tracker_names(config, run_name, job_type)
        project, name = str(names["project"]), f"{names['name']}-{run_id(run_dir)}"  # Trackio finds runs by name
        self.has_earlier_steps = any(map(os.environ.get, REMOTE))
        if not self.has_earlier_steps:
            with suppress(ValueError):  # the project does not exist yet
                for run in list(trackio.Api().runs(project)):
                    if run.name == name:
                        run.delete()
        self._run = trackio.init(
            project, name, group=names["group"], config=dict(settings), resume="allow", embed=False
        )
        message(f"Trackio: trackio show --project {project}")

    def log(self, step: LoggedStep) -> None:
        import trackio

        numbers = {name: value for name, value in step.row.items() if name != "step"}
        histograms = {f"histogram/{name}": trackio.Histogram(values) for name, values in step.values.items()}
        self._run.log(numbers | histograms, step=step.number)
        for finding in step.findings:
            if finding.fix:
                self._run.alert(finding.name, finding.text)

    def close(self) -> None:
        self._run.finish()
