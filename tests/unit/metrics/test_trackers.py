"""TensorBoard and Trackio, each with its own reader, and what happens without them. W&B: integration/test_wandb.py."""

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from grpo_cli.choices import TrackerName
from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import check_tracker
from grpo_cli.errors import ConfigError
from grpo_cli.metrics import trackers
from grpo_cli.metrics.loggers import RunLogger

CUT = {"length/truncated": 1.0}


def log_steps(run_dir: Path, *names: TrackerName, start: int, end: int) -> str:
    """Log the steps after `start`, with a value that is the step's number. Returns what the console shows."""
    run_dir.mkdir(exist_ok=True)
    shown = StringIO()
    config = LoggerConfig(trackers=list(names), console=False)
    options = {"run_name": "tiny", "steps": 9, "settings": {"seed": 0}, "console": Console(file=shown, width=200)}
    with RunLogger(config, run_dir, start_step=start, **options) as logger:
        for step in range(start + 1, end + 1):
            logger.log(step, {"reward/mean": step, **CUT}, values={"length": [1.0, 2.0, float(step)]})
    return shown.getvalue()


def interrupted_run(run_dir: Path, name: TrackerName) -> str:
    """Six steps, of which the last comes after the last checkpoint and runs again, with three more."""
    return log_steps(run_dir, name, start=0, end=6) + log_steps(run_dir, name, start=5, end=9)


def test_tensorboard_has_every_step_once_across_a_resume_with_histograms_and_findings(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = interrupted_run(tmp_path / "run", TrackerName.tensorboard)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"), {"histograms": 0}).Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("reward/mean")] == [
        (step, step) for step in range(1, 10)
    ]
    lengths = {event.step: event.histogram_value for event in events.Histograms("histogram/length")}
    assert (len(lengths), lengths[9].max) == (9, 9)
    (finding,) = events.Tensors("health/text_summary")
    assert finding.step == 5
    assert b"Raise rollout.max_new_tokens" in finding.tensor_proto.string_val[0]
    assert f"tensorboard --logdir {tmp_path}" in shown


def test_tensorboard_gets_the_steps_that_were_logged_without_it(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_steps(tmp_path, start=0, end=3)
    log_steps(tmp_path, TrackerName.tensorboard, start=2, end=4)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("reward/mean")] == [1, 2, 3, 4]


def test_trackio_has_every_step_once_across_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read by the import
    pytest.importorskip("trackio", reason="needs trackio")
    from trackio.sqlite_storage import SQLiteStorage

    interrupted_run(tmp_path / "run", TrackerName.trackio)
    (run,) = SQLiteStorage.get_runs("r1zero")
    logs = SQLiteStorage.get_logs("r1zero", run)
    assert [(row["step"], row["reward/mean"]) for row in logs] == [(step, step) for step in range(1, 10)]
    assert [alert["text"][:20] for alert in SQLiteStorage.get_alerts("r1zero")] == ["100 % of the respons"]


def test_a_tracker_that_fails_becomes_one_message_and_the_run_continues(tmp_path, monkeypatch):
    class Broken:
        has_earlier_steps = False

        def __init__(self, *_: object) -> None: ...

        def log(self, step: object) -> None:
            raise OSError("no space left\nlong story")

    monkeypatch.setattr(trackers, "TensorBoardRun", Broken)
    shown = log_steps(tmp_path, TrackerName.tensorboard, start=0, end=3)
    assert shown == "TensorBoard failed: no space left\nThe run continues, and metrics.jsonl has every metric.\n"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("grpo_cli.config.tracker.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorboard, trackio, which is not.*pip install tensorboard trackio`"):
        check_tracker(LoggerConfig(trackers=[TrackerName.tensorboard, TrackerName.trackio]))
    check_tracker(LoggerConfig(trackers=[]))


def test_uploading_the_model_needs_wandb():
    with pytest.raises(ConfigError, match=r"Add wandb to logger\.trackers"):
        check_tracker(LoggerConfig(trackers=[], upload_model=True))


def test_no_tracker_is_imported_unless_it_is_used():
    script = "import sys, grpo_cli.metrics.loggers; print({'wandb', 'tensorboard', 'trackio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("logger=default", ["wandb"]),
        ("logger=tensorboard", ["tensorboard"]),
        ("logger=trackio", ["trackio"]),
        ("logger.trackers=[wandb,tensorboard]", ["wandb", "tensorboard"]),
        ("logger=none", []),
    ],
)
def test_trackers_are_chosen_by_a_file_or_a_list(compose_train, choice, expected):
    assert compose_train(choice).logger.trackers == expected
