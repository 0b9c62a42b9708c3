"""The stages of a pipeline as processes, run by a small fake of r1zero."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from grpo_cli.commands import pipeline as command
from grpo_cli.errors import CheckpointError, ConfigError, TrainingError
from grpo_cli.pipeline.run import read_progress, run_stages
from grpo_cli.pipeline.stages import Stage

# Each start adds a line to log.txt, then does what do.json says for its stage: wait, fail, or just finish.
FAKE = """\
import json, os, signal, sys, time
from pathlib import Path

settings = dict(argument.split("=", 1) for argument in sys.argv[2:])
folder = Path(settings["run.dir"])
folder.mkdir(exist_ok=True)
with (folder.parent / "log.txt").open("a") as log:
    log.write(f"{folder.name} {os.getpid()}\\n")
do = (folder.parent / "do.json")
what = json.loads(do.read_text()).get(folder.name) if do.exists() else None
if what == "wait":
    def stop(number, _):
        (folder / "saved").touch()
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    (folder / "ready").touch()
    time.sleep(60)
if what and what.startswith("meet"):
    (folder / "here").touch()
    while not (folder.parent / what.split()[1] / "here").exists():
        time.sleep(0.02)
if what == "fail":
    sys.exit(3)
if sys.argv[1] == "eval":
    (folder / "eval.json").write_text(json.dumps({"benchmarks": {"one": {"avg": 0.5, "avg_se": 0.1}}}))
"""
PIPELINE = """\
# A pipeline for tests.
steps: 3
evaluate: eval.n=2 eval.temperature=1
stages:
  first: train steps=${steps}
  second: train steps=2 model.path=${dir}/first/model
"""
NAMES = ["base_eval", "first", "first_eval", "second", "second_eval"]
PLACES = ["base_eval", "first", "second_eval"]  # at the start, in the middle, at the end
MAIN = """\
import json, sys
from grpo_cli.commands import pipeline
from grpo_cli.errors import R1ZeroError
pipeline.check_stages = lambda *_, **__: None
try:
    pipeline.main(sys.argv[2:], json.loads(sys.argv[1]))
except R1ZeroError as error:
    sys.exit(error.exit_status)
"""


class Case:
    """A pipeline's file, its folder, and ways to start it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.folder.mkdir()
        self.file = folder / "mine.yaml"
        self.file.write_text(PIPELINE)
        (folder / "fake.py").write_text(FAKE)
        self.runner = [sys.executable, "-I", "-S", str(folder / "fake.py")]
        self.arguments = [f"pipeline={self.file}", f"run.dir={self.folder}"]

    def start(self, *settings: str) -> None:
        command.main([*self.arguments, *settings], self.runner)

    def start_apart(self) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", MAIN, json.dumps(self.runner), *self.arguments])

    def let(self, **what: str) -> None:
        (self.folder / "do.json").write_text(json.dumps(what))

    def started(self) -> list[str]:
        return [line.split()[0] for line in self._log()]

    def last_process(self) -> int:
        return int(self._log()[-1].split()[1])

    def done(self) -> list[str]:
        return [name for name, entry in read_progress(self.folder).items() if entry["done"]]

    def unfinished(self) -> list[str]:
        return [name for name, entry in read_progress(self.folder).items() if not entry["done"]]

    def _log(self) -> list[str]:
        return (self.folder / "log.txt").read_text().splitlines()


@pytest.fixture
def case(tmp_path, monkeypatch) -> Case:
    monkeypatch.setattr(command, "check_stages", lambda *_, **__: None)  # takes seconds and is tested elsewhere
    return Case(tmp_path)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_stages_run_in_order_and_the_table_shows_what_each_made(case, capsys):
    case.start()
    assert case.started() == case.done() == NAMES
    first = case.folder / "first"
    assert read_progress(case.folder)["second"]["words"] == [
        *("train", f"logger.group={case.folder.name}", "steps=2", f"model.path={first}/model"),
        *(f"run.dir={case.folder}/second", "resume=auto"),
    ]
    lines = [line.replace(" ", "") for line in capsys.readouterr().out.splitlines()]
    rows = [line.split("|")[1:4] for line in lines if line.startswith("|")][2:]
    assert rows == [
        ["base_eval", "base_eval/eval.json", "50.0%±10.0%"],
        ["first", "first/model", "50.0%±10.0%"],
        ["second", "second/model", "50.0%±10.0%"],
    ]


def test_finished_stages_do_not_run_again(case):
    case.start()
    case.start()
    command.main([f"resume={case.folder}"], case.runner)
    assert case.started() == NAMES


@pytest.mark.parametrize("name", PLACES)
def test_a_stage_that_fails_ends_the_pipeline_and_is_the_first_to_run_after_resume(case, name):
    case.let(**{name: "fail"})
    with pytest.raises(TrainingError, match=f"{name} ended with exit status 3.*resume={case.folder}") as raised:
        case.start()
    assert raised.value.exit_status == 3
    place = NAMES.index(name)
    assert (case.done(), case.unfinished()) == (NAMES[:place], [name])
    case.let()
    command.main([f"resume={case.folder}"], case.runner)
    assert case.started() == [*NAMES[: place + 1], *NAMES[place:]]
    assert case.done() == NAMES


def run_two_at_once(case, **stages: list[str]) -> None:
    """Run the stages, given with those that they use, two at a time."""
    folders = {name: case.folder / name for name in stages}
    run_stages(
        [Stage(name, ["train", f"run.dir={folders[name]}"], uses) for name, uses in stages.items()],
        *(read_progress(case.folder), case.folder, "the same command", case.runner),
        at_once=2,
    )


def test_two_stages_run_at_once_and_a_stage_waits_for_those_that_it_uses(case):
    case.let(a="meet c", c="meet a")
    run_two_at_once(case, a=[], b=["a"], c=[], d=["b", "c"])
    started = case.started()
    assert set(started[:2]) == {"a", "c"}  # each ends only once the other has started
    assert started[2:] == ["b", "d"]
    assert sorted(case.done()) == ["a", "b", "c", "d"]


def test_if_one_of_two_stages_fails_the_other_saves_and_nothing_more_starts(case):
    case.let(a="wait", b="fail")
    with pytest.raises(TrainingError, match=r"b ended with exit status 3.*Resume with: the same command"):
        run_two_at_once(case, a=[], b=[], c=[])
    assert "c" not in case.started()
    assert sorted(case.unfinished()) == ["a", "b"]


def test_a_started_stage_keeps_its_settings(case):
    case.let(second="fail")
    with pytest.raises(TrainingError):
        case.start()
    with pytest.raises(ConfigError, match="first was started with other settings: steps=3 then, steps=4 now"):
        case.start("steps=4")
    with pytest.raises(ConfigError, match="second was started with other settings: steps=2 then, steps=9 now"):
        case.start("second.steps=9")
    case.file.write_text(PIPELINE.replace("second:", "other:"))
    with pytest.raises(ConfigError, match="second was started, but is no longer in the pipeline"):
        case.start()


def test_a_stage_that_was_not_started_accepts_new_settings_and_resume_keeps_them(case):
    case.let(first="fail")
    with pytest.raises(TrainingError):
        case.start()
    case.let(second="fail")
    with pytest.raises(TrainingError):
        case.start("second.steps=9")
    assert "steps=9" in read_progress(case.folder)["second"]["words"]
    case.let()
    command.main([f"resume={case.folder}"], case.runner)
    assert case.done() == NAMES


def test_a_stage_whose_folder_is_removed_runs_again_only_with_the_stages_made_from_it(case):
    case.start()
    (case.folder / "first").rmdir()
    with pytest.raises(ConfigError, match="second was made from first, which must run again"):
        case.start()


def test_damaged_progress_is_reported_with_a_fix(case):
    (case.folder / "pipeline.json").write_text('{"steps": []}')
    with pytest.raises(CheckpointError, match="Remove it"):
        case.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_the_stage_saves(case, number):
    case.let(first="wait")
    process = case.start_apart()
    wait_for(case.folder / "first/ready")
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert (case.folder / "first/saved").exists()
    assert (case.done(), case.unfinished()) == (["base_eval"], ["first"])


@pytest.mark.parametrize("name", PLACES)
def test_the_stage_of_a_killed_pipeline_dies_too_and_the_pipeline_can_be_resumed(case, name):
    case.let(**{name: "wait"})
    process = case.start_apart()
    wait_for(case.folder / name / "ready")
    stage = psutil.Process(case.last_process())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs([stage], timeout=30)
    assert not stage.is_running()
    place = NAMES.index(name)
    assert case.unfinished() == [name]
    case.let()
    case.start()
    assert case.started() == [*NAMES[: place + 1], *NAMES[place:]]
    assert case.done() == NAMES
