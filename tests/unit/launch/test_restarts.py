"""Which ranks are started again."""

import json
import signal
from types import SimpleNamespace

import pytest

from grpo_cli.launch.restarts import MAX_RESTARTS, Restarts

RUNS, ENDED, KILLED, FAILED = None, 0, -signal.SIGKILL, 1


def started(logs, *codes: int | None) -> list[int]:
    """The ranks that are started again, of one that trains and others that generate with these exit codes."""
    ranks = []
    processes = {rank: SimpleNamespace(poll=lambda code=code: code) for rank, code in enumerate(codes)}
    Restarts(1, processes, ranks.append, logs).start_dead()
    return ranks


@pytest.mark.parametrize("code", [KILLED, FAILED])
def test_a_rank_that_generates_and_dies_is_started_again_and_named(code, tmp_path, capsys):
    assert started(tmp_path, RUNS, RUNS, code) == [2]
    how = "was killed by SIGKILL, as Linux does when memory runs out" if code == KILLED else "exited with code 1"
    assert f"Rank 2, which generates, {how}. It is started again (1 of at most 5 times)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "codes", [(RUNS, ENDED, RUNS), (KILLED, RUNS, RUNS), (FAILED, FAILED, FAILED), (ENDED, KILLED)]
)
def test_no_other_rank_is(codes, tmp_path):
    assert started(tmp_path, *codes) == []


@pytest.mark.parametrize(("kind", "ranks"), [("TrainingError", []), ("RuntimeError", [1])])
def test_an_error_that_the_user_has_to_fix_ends_the_run(kind, ranks, tmp_path):
    report = tmp_path / "rank_1.error.json"
    report.write_text(json.dumps({"kind": kind, "message": "", "traceback": ""}))
    assert started(tmp_path, RUNS, FAILED) == ranks
    assert report.exists() == (not ranks)


def test_a_rank_that_dies_again_and_again_ends_the_run(tmp_path):
    ranks = []
    processes = {rank: SimpleNamespace(poll=lambda code=code: code) for rank, code in enumerate([RUNS, KILLED])}
    restarts = Restarts(1, processes, ranks.append, tmp_path)
    for _ in range(MAX_RESTARTS + 2):
        restarts.start_dead()
    assert ranks == [1] * MAX_RESTARTS
