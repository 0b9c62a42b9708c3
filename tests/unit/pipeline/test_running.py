"""The steps of a pipeline as processes, by a quick stand-in for r1zero that does as its settings say."""

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
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.pipeline.running import StepEnded, read_manifest

# Each start adds its line to log.txt; then it does what `do` says, or goes on from what it saved.
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
if what == "fail":
    sys.exit(3)
if sys.argv[1] == "eval":
    figures = {"avg": 0.5, "avg_se": 0.1, "length": 4.0, "well_formed": 1.0, "data": {"source": "here"}}
    (folder / "eval.json").write_text(json.dumps({
        "benchmarks": {"one": figures}, "macro_average": {"avg": 0.5, "avg_se": 0.1}, "sampling": {
            "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128}}))
elif what != "leave nothing":
    (folder / "model").mkdir(exist_ok=True)
"""
PIPELINE = """\
# A test's.
steps: 3
evaluate: eval.n=2 eval.temperature=1
stages:
  first:
    command: train
    overrides: steps=${steps}
  second:
    command: train
    overrides: steps=2
    takes: {model.path: first/model}
"""
NAMES = ["base_eval", "first", "first_eval", "second", "second_eval"]
MAIN = """\
import json, sys
from grpo_cli.commands import pipeline
from grpo_cli.errors import R1ZeroError
pipeline.check_steps = lambda *_, **__: None
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

    def statuses(self) -> list[str]:
        return [record["status"] for record in read_manifest(self.folder)]

    def _log(self) -> list[str]:
        return (self.folder / "log.txt").read_text().splitlines()


@pytest.fixture
def case(tmp_path, monkeypatch) -> Case:
    # Which take seconds, and have tests of their own.
    monkeypatch.setattr(command, "check_steps", lambda *_, **__: None)
    monkeypatch.setattr(command, "plot", lambda *_: None)
    return Case(tmp_path)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_steps_run_in_order_and_each_is_recorded(case):
    case.start()
    assert case.started() == NAMES
    records = read_manifest(case.folder)
    assert [record["name"] for record in records] == NAMES
    assert {record["status"] for record in records} == {"done"}
    assert all(record["started"] <= record["ended"] and record["seconds"] > 0 for record in records)
    first = case.folder / "first"
    assert records[3]["arguments"] == [
        f"logger.group={case.folder.name}",
        *("steps=2", f"model.path={first}/model", f"run.dir={case.folder}/second", "resume=auto"),
    ]
    assert "| second | 50.0% ± 10.0% |" in (case.folder / "pipeline.md").read_text()


def test_what_is_done_is_not_done_again(case):
    case.start()
    case.start()
    command.main([f"resume={case.folder}"], case.runner)
    assert case.started() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_fails_ends_the_pipeline_which_then_goes_on_with_it(case, name):
    case.let(**{name: "fail"})
    with pytest.raises(StepEnded, match=f"{name} ended with exit status 3.*resume={case.folder}") as told:
        case.start()
    assert told.value.exit_status == 3
    place = NAMES.index(name)
    assert case.statuses() == ["done"] * place + ["failed"] + ["waiting"] * (4 - place)
    case.let()
    command.main([f"resume={case.folder}"], case.runner)
    assert case.started() == [*NAMES[: place + 1], *NAMES[place:]]
    assert case.statuses() == ["done"] * 5


def test_a_step_that_has_begun_keeps_its_settings_and_one_that_has_not_takes_new_ones(case):
    case.let(second="fail")
    with pytest.raises(StepEnded):
        case.start()
    with pytest.raises(ConfigError, match="first has begun with other settings: steps=3 there and steps=4 now"):
        case.start("steps=4")
    with pytest.raises(ConfigError, match="second has begun with other settings: steps=2 there and steps=9 now"):
        case.start("second.steps=9")
    case.let(second_eval="fail")
    with pytest.raises(StepEnded):
        case.start()
    case.file.write_text(PIPELINE.replace("second:", "other:"))
    with pytest.raises(ConfigError, match="second has begun, and is not in the pipeline any more"):
        case.start()


def test_a_step_that_waits_is_taken_as_it_is_now_and_stays_so(case):
    case.let(first="fail")
    with pytest.raises(StepEnded):
        case.start()
    case.let(second="fail")
    with pytest.raises(StepEnded):
        case.start("second.steps=9")
    assert "steps=9" in read_manifest(case.folder)[3]["arguments"]
    case.let()
    command.main([f"resume={case.folder}"], case.runner)  # the folder's own pipeline has it
    assert case.statuses() == ["done"] * 5


def test_a_step_whose_folder_is_removed_is_done_again_and_what_was_made_from_it_must_be_too(case):
    case.start()
    (case.folder / "first/model").rmdir()
    (case.folder / "first").rmdir()
    with pytest.raises(ConfigError, match="second was made from first, which is to be done again"):
        case.start()


def test_a_stage_that_leaves_not_what_another_takes_is_named(case):
    case.let(first="leave nothing")
    with pytest.raises(DataError, match=r"first_eval takes .*first/model, which first did not leave"):
        case.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_the_step_saves(case, number):
    case.let(first="wait")
    process = case.start_apart()
    wait_for(case.folder / "first/ready")
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert (case.folder / "first/saved").exists()
    assert case.statuses() == ["done", "stopped", "waiting", "waiting", "waiting"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_that_is_killed_takes_its_step_along_and_goes_on(case, name):
    case.let(**{name: "wait"})
    process = case.start_apart()
    wait_for(case.folder / name / "ready")
    step = psutil.Process(case.last_process())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs([step], timeout=30)
    assert not step.is_running()
    place = NAMES.index(name)
    assert case.statuses()[place] == "running"
    case.let()
    case.start()
    assert case.started() == [*NAMES[: place + 1], *NAMES[place:]]
    assert case.statuses() == ["done"] * 5
