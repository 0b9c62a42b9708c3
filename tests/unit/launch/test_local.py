"""What becomes of a rank that fails: the launcher reports its fault as what it was."""

import json
import signal
from pathlib import Path

import pytest

from grpo_cli import stop
from grpo_cli.errors import DataError, TrainingError
from grpo_cli.launch.local import _explain


def report(logs: Path, rank: int, kind: str) -> None:
    text = json.dumps({"kind": kind, "message": f"message of {rank}", "traceback": f"traceback of {rank}"})
    (logs / f"rank_{rank}.error.json").write_text(text)


def test_a_fault_of_the_users_comes_back_as_what_it_was(tmp_path):
    report(tmp_path, 0, "DataError")
    error = _explain(tmp_path, {0: 1})
    assert type(error) is DataError
    assert str(error) == "message of 0"


def test_the_rank_that_failed_first_is_the_one_that_is_reported(tmp_path):
    report(tmp_path, 1, "DataError")
    report(tmp_path, 0, "RuntimeError")  # killed by the collective that rank 1 left
    assert str(_explain(tmp_path, {0: 1, 1: 1})) == "message of 1"


def test_any_other_fault_comes_with_its_traceback_and_the_place_of_the_log(tmp_path):
    report(tmp_path, 0, "ZeroDivisionError")
    error = _explain(tmp_path, {0: 1})
    assert type(error) is TrainingError
    assert "traceback of 0" in str(error)
    assert f"The whole log: {tmp_path}" in str(error)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL, as Linux does when memory runs out"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (7, "ended with exit code 7 and gave no reason"),
    ],
)
def test_a_rank_that_says_nothing_is_named_with_how_it_ended(tmp_path, code, how):
    assert str(_explain(tmp_path, {3: code})) == f"Rank 3 {how}. Its log: {tmp_path}/rank_3.log"


@pytest.mark.parametrize("number", stop.REQUESTS)
def test_a_rank_that_a_request_has_ended_is_no_fault(tmp_path, number):
    report(tmp_path, 0, "RuntimeError")  # its neighbour is gone
    assert _explain(tmp_path, {0: 1, 1: -number}) is None


def test_a_killed_rank_is_the_cause_of_what_the_others_report(tmp_path):
    report(tmp_path, 0, "RuntimeError")  # its neighbour is gone
    assert "Rank 1 was killed" in str(_explain(tmp_path, {0: 1, 1: -9}))
    report(tmp_path, 1, "DataError")
    assert "traceback of 0" in str(_explain(tmp_path, {0: 1, 1: -9}))  # once it reports its own fault, it is as others
