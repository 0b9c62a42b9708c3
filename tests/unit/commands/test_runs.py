"""`r1zero runs` on folders as runs leave them."""

import json
import os
from pathlib import Path

import pytest

from grpo_cli.commands.runs import main
from grpo_cli.errors import ConfigError
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.listing import State, list_runs
from grpo_cli.runs.lock import WRITER_LOCK, locked


@pytest.fixture
def make_run(compose_as, tmp_path):
    """A run folder: `steps` rows of metrics, with evaluations of accuracy `before` and `after`."""

    def make(name: str, steps: int = 0, *, age: int = 0, command: str = "train", finished: bool = False) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "logs").mkdir(parents=True)
        data = ["data.path=README.md"] if command == "reward-model" else []
        (folder / "config.yaml").write_text(frozen_text(compose_as(command, f"run.dir={folder}", *data)))
        rows = [{"step": step} for step in range(steps + 1)] if steps else []
        if rows:
            rows[0]["eval/heldout/avg"], rows[-1]["eval/heldout/avg"] = 0.25, 0.75
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "checkpoints" / f"step_{steps:06d}").mkdir(parents=True)
            (folder / "checkpoints" / f"step_{steps:06d}" / "config.yaml").write_text("a copy")
        if finished:
            (folder / "model").mkdir()
            (folder / "result.json").write_text(json.dumps(rows[-1]))
        now = (folder / "config.yaml").stat().st_mtime
        for file in folder.glob("*.*"):
            os.utime(file, (now - age, now - age))
        return folder

    return make


def test_each_state_is_recognised_and_the_newest_run_comes_first(make_run, tmp_path):
    make_run("done", 4, age=50, finished=True)
    make_run("sweeps/eps/0", 3, age=40)
    failed = make_run("failed", 2, age=30)
    error = {"kind": "TrainingError", "message": "out of memory", "traceback": ""}
    (failed / "logs/rank_0.error.json").write_text(json.dumps(error))
    interrupted = make_run("interrupted", 2, age=25)
    (interrupted / "logs/rank_0.error.json").write_text(json.dumps(error | {"kind": "Stopped"}))
    make_run("empty", age=20)
    (make_run("damaged", 2, age=10) / "metrics.jsonl").write_text("{]\n{}\n")
    (make_run("unfinished_yaml", 1) / "config.yaml").write_text("run: [")
    runs = {str(run.folder.relative_to(tmp_path / "runs")): run for run in list_runs(tmp_path / "runs")}
    states = {name: run.state for name, run in runs.items()}
    assert states.pop("unfinished_yaml") is State.unreadable
    assert list(states) == ["damaged", "empty", "interrupted", "failed", "sweeps/eps/0", "done"]
    assert [state.value for state in states.values()] == [
        "unreadable", "empty", "stopped", "failed", "stopped", "finished",
    ]  # fmt: skip
    done, stopped = runs["done"], runs["sweeps/eps/0"]
    assert (done.command, done.step, done.before, done.after, done.resume) == ("train", 4, 0.25, 0.75, "")
    assert stopped.resume == f"r1zero train resume={tmp_path}/runs/sweeps/eps/0"


def test_a_run_whose_secret_is_not_set_here_is_listed(make_run, tmp_path):
    file = make_run("secret", 2) / "config.yaml"
    file.write_text(file.read_text().replace("entity: null", "entity: ${oc.env:NOT_SET_HERE}"))
    assert "NOT_SET_HERE" in file.read_text()
    (run,) = list_runs(tmp_path / "runs")
    assert (run.state, run.step) == (State.stopped, 2)


@pytest.mark.parametrize("command", ["sft", "reward-model"])
def test_runs_of_the_other_commands_that_train_are_listed(make_run, tmp_path, command):
    make_run("other", 3, command=command)
    (run,) = list_runs(tmp_path / "runs")
    assert (run.command, run.state) == (command, State.stopped)
    assert run.metric.startswith("eval/heldout/")


def test_a_run_that_is_being_written_is_running(make_run, tmp_path):
    folder = make_run("now", 2)
    with locked(folder / WRITER_LOCK):
        (run,) = list_runs(tmp_path / "runs")
    assert run.state is State.running
    assert list_runs(tmp_path / "runs")[0].state is State.stopped  # looking does not hold the lock


def test_prune_removes_only_runs_without_a_step(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, empty = make_run("kept", 1), make_run("empty")
    main(["prune", "--dry-run"])
    assert empty.is_dir()
    main(["prune"])
    assert (kept.is_dir(), empty.is_dir()) == (True, False)
    assert capsys.readouterr().out == "would remove runs/empty\nremoved runs/empty\n"


def test_the_table_ends_with_what_to_type(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run("stopped", 3)
    main([])
    printed = capsys.readouterr().out
    assert "3 / 200" in printed
    assert printed.endswith("To resume a run:\n  r1zero train resume=runs/stopped\n")
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_an_evaluation_is_listed_by_its_run_folder_with_its_average(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run("measured/eval", command="eval", age=7200).parent
    (folder / "eval.json").write_text('{"macro_average": {"avg": 0.5}}')
    main([])
    words = capsys.readouterr().out.replace("│", " ").split()
    assert [word for word in words if word in ("runs/measured", "eval", "finished", "0", "0.500")] == [
        "runs/measured", "eval", "finished", "0.500",
    ]  # fmt: skip
    (run,) = list_runs(Path("runs"))
    assert run.folder == Path("runs/measured")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        main(["--folder", str(tmp_path / "nowhere")])
