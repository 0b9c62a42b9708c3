import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from kept_groups import group
from rich.console import Console

from grpo_cli.choices import TrackerName
from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics import loggers
from grpo_cli.metrics.loggers import RunLogger
from grpo_cli.runs.rollouts import Split, kept_steps, read_step

QUIET = LoggerConfig(trackers=[], console=False)


def run_logger(run_dir: Path, config: LoggerConfig = QUIET, start_step: int = 0) -> RunLogger:
    console = Console(file=StringIO())
    return RunLogger(config, run_dir, run_name="tiny", steps=9, settings={}, start_step=start_step, console=console)


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_metrics_jsonl_is_written_without_any_other_logger(tmp_path):
    with run_logger(tmp_path) as logger:
        logger.log(0, {"eval/heldout/avg": 0.25})
        logger.log(1, {"reward/mean": 1, "length/mean": 20.5})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 0, "eval/heldout/avg": 0.25}\n{"step": 1, "reward/mean": 1.0, "length/mean": 20.5}\n'
    )


def test_trackers_that_take_long_to_start_and_close_are_shown(tmp_path, monkeypatch, shown):
    class Slow:
        def resume(self, *_):
            shown.wait_for("starting tensorboard ...")

        def close(self, *_):
            shown.wait_for("closing tensorboard ...")

    monkeypatch.setattr(loggers, "open_trackers", lambda *_, **__: [Slow()])
    config, console = LoggerConfig(trackers=[TrackerName.tensorboard], console=False), Console(file=shown)
    RunLogger(config, tmp_path, run_name="tiny", steps=9, settings={}, console=console).close()


def test_a_row_is_on_disk_before_the_next_step(tmp_path):
    logger = run_logger(tmp_path)
    logger.log(1, {})
    assert steps(tmp_path) == [1]
    logger.close()


def test_a_row_and_its_groups_survive_a_power_cut(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").read_bytes()), fsync(fd)))
    with run_logger(tmp_path) as logger:
        logger.log(1, {"reward/mean": 1})
        logger.log(2, {}, [group(2)])
    row = b'{"step": 1, "reward/mean": 1.0}\n'
    kept = (tmp_path / "rollouts/train_000002.jsonl.gz").read_bytes()
    assert synced == [row, row + b'{"step": 2}\n', kept]


@pytest.mark.parametrize(("num_bytes", "path"), [(15, "metrics.jsonl"), (200, "rollouts/train_000002.jsonl.gz")])
def test_a_full_disk_gives_an_error_that_says_how_to_resume(tmp_path, num_bytes, path):
    """A limit on the file size simulates a full disk. It applies to a whole process, so this test starts one."""
    script = f"""
import resource
from pathlib import Path
from rich.console import Console
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import SetupError
from grpo_cli.metrics import loggers
from grpo_cli.metrics.loggers import RunLogger
from kept_groups import group, response

config = LoggerConfig(trackers=[], console=False)
resource.setrlimit(resource.RLIMIT_FSIZE, ({num_bytes}, resource.RLIM_INFINITY))
try:
    with RunLogger(config, Path("."), run_name="", steps=9, settings={{}}, console=Console()) as logger:
        for step in range(1, 9):
            logger.log(step, {{}}, [group(step, response(str(list(range(500)))))] if step > 1 else [])
except SetupError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == (
        f"{path} cannot be written: File too large. Free some space there. Then resume=<the run's folder> "
        "resumes from the last checkpoint.\n"
    ), done.stderr
    with run_logger(tmp_path, start_step=1) as logger:  # after space was freed, the half-written row is gone
        logger.log(2, {})
    assert steps(tmp_path) == [1, 2]


def test_a_finding_is_printed_on_its_own_line_and_once_across_a_resume(tmp_path):
    shown = StringIO()
    for start, end in ((0, 6), (5, 14)):  # step 6 came after the last checkpoint
        options = {"run_name": "tiny", "steps": 9, "settings": {}, "console": Console(file=shown)}
        with RunLogger(QUIET, tmp_path, start_step=start, **options) as logger:
            for step in range(start + 1, end + 1):
                logger.log(step, {"length/truncated": 1.0})
    (line,) = shown.getvalue().splitlines()
    assert line.startswith("health: step 5: 100 % of the responses were cut")


def test_findings_are_kept_in_the_run_folder_once_across_a_kill_and_a_resume(tmp_path):
    cut, failing = {"length/truncated": 1.0}, {"length/truncated": 1.0, "policy/skipped_steps": 1.0}
    for start, end in ((0, 7), (5, 7)):  # step 7 came after the last checkpoint, and runs again
        with run_logger(tmp_path, start_step=start) as logger:
            for step in range(start + 1, end + 1):
                logger.log(step, failing if step == 7 else cut)
    first, second = map(json.loads, (tmp_path / "health.jsonl").read_text().splitlines())
    assert first == {
        "step": 5,
        "name": "responses are cut",
        "words": "100 % of the responses were cut at the limit.",
        "fix": "Raise rollout.max_new_tokens, or set algorithm.overlong to say how they count.",
    }
    assert (second["step"], second["name"]) == (7, "optimizer steps are skipped")


def test_a_run_without_findings_has_no_health_file(tmp_path):
    with run_logger(tmp_path) as logger:
        logger.log(1, {})
    assert not (tmp_path / "health.jsonl").exists()


def test_a_note_is_printed_without_the_word_health(tmp_path):
    shown = StringIO()
    options = {"run_name": "", "steps": 9, "settings": {}, "console": Console(file=shown)}
    with RunLogger(QUIET, tmp_path, **options) as logger:
        for step in range(1, 6):
            logger.log(step, {"policy/loss": 0.0, "reward/group_std": 0.4})
    assert shown.getvalue().startswith("note: step 5: policy/loss is near 0 (0), as it must be")


def test_totals_are_exact_across_a_kill_and_a_resume(tmp_path):
    for start, end in ((0, 3), (2, 4)):  # step 3 runs again
        with run_logger(tmp_path, start_step=start) as logger:
            for step in range(start + 1, end + 1):
                logger.log(step, {"rollout/tokens": 10 * step, "rollout/samples": 4})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["total/tokens"], row["total/samples"]) for row in rows] == [(10, 4), (30, 8), (60, 12), (100, 16)]


def test_logging_a_step_twice_raises(tmp_path):
    with run_logger(tmp_path) as logger:
        logger.log(1, {})
        with pytest.raises(AssertionError, match="step 1 is logged after step 1"):
            logger.log(1, {})


@pytest.mark.parametrize(
    ("start_step", "half_a_line", "kept"),
    [
        (2, "", [0, 1, 2]),
        (4, '{"step": 5, "rew', [0, 1, 2, 3, 4]),  # killed while writing
        (0, "", []),  # nothing was saved: the run starts again
    ],
)
def test_a_resumed_run_continues_after_the_rows_of_its_checkpoint(tmp_path, start_step, half_a_line, kept):
    with run_logger(tmp_path) as logger:
        for step in range(5):
            logger.log(step, {"reward/mean": 0.1 * step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half_a_line)
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()[: len(kept)]
    with run_logger(tmp_path, start_step=start_step) as logger:
        logger.log(start_step + 1, {})
    assert steps(tmp_path) == [*kept, start_step + 1]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[:-1] == before


def test_the_groups_of_each_step_are_written_to_a_file_for_each_split(tmp_path):
    followed = group(2, split=Split.heldout)
    with run_logger(tmp_path) as logger:
        logger.log(1, {}, [group(1), group(1, problem="q")])
        logger.log(2, {}, [group(2), followed])
        logger.log(3, {})
    assert sorted(path.name for path in (tmp_path / "rollouts").iterdir()) == [
        "heldout_000002.jsonl.gz", "train_000001.jsonl.gz", "train_000002.jsonl.gz",
    ]  # fmt: skip
    assert read_step(tmp_path, Split.train, 1) == [group(1), group(1, problem="q")]
    assert read_step(tmp_path, Split.heldout, 2) == [followed]


@pytest.mark.parametrize(("start_step", "kept"), [(2, [1, 2, 3]), (0, [1])])
def test_a_resumed_run_has_the_groups_of_each_step_once(tmp_path, start_step, kept):
    with run_logger(tmp_path) as logger:
        for step in range(1, 5):
            logger.log(step, {}, [group(step)])
    with run_logger(tmp_path, start_step=start_step) as logger:
        logger.log(start_step + 1, {}, [group(start_step + 1)])
    assert kept_steps(tmp_path, Split.train) == kept


def test_a_run_that_keeps_no_groups_has_no_folder_of_them(tmp_path):
    with run_logger(tmp_path) as logger:
        logger.log(1, {})
    assert not (tmp_path / "rollouts").exists()


def test_wandb_is_not_imported_unless_it_is_used(tmp_path):
    script = f"""
import sys
from pathlib import Path
from rich.console import Console
from grpo_cli.choices import TrackerName
from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics import loggers
from grpo_cli.metrics.loggers import RunLogger
with RunLogger(LoggerConfig(trackers=[]), Path({str(tmp_path)!r}), run_name="", steps=1, settings={{}}, console=Console()) as logger:
    logger.log(1, {{}})
print({{"wandb", "torch", "matplotlib"}} & set(sys.modules))
"""  # noqa: E501
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
