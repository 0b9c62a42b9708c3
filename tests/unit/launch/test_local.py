"""How the launcher reports a rank that fails."""

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


def test_an_error_that_the_user_can_fix_keeps_its_type_and_message(tmp_path):
    report(tmp_path, 0, "DataError")
    error = _explain(tmp_path, {0: 1})
    assert type(error) is DataError
    assert str(error) == "message of 0"


def test_the_rank_that_failed_first_is_reported(tmp_path):
    report(tmp_path, 1, "DataError")
    report(tmp_path, 0, "RuntimeError")  # from the collective that rank 1 left
    assert str(_explain(tmp_path, {0: 1, 1: 1})) == "message of 1"


def test_any_other_error_comes_with_its_traceback_and_the_path_of_the_logs(tmp_path):
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
        (7, "exited with code 7 and no error message"),
    ],
)
def test_a_rank_without_an_error_file_is_named_with_its_exit_code_or_signal(tmp_path, code, how):
    assert str(_explain(tmp_path, {3: code})) == f"Rank 3 {how}. Its log: {tmp_path}/rank_3.log"


@pytest.mark.parametrize("number", stop.REQUESTS)
def test_a_rank_that_a_request_to_stop_ended_is_not_an_error(tmp_path, number):
    report(tmp_path, 0, "RuntimeError")  # because rank 1 is gone
    assert _explain(tmp_path, {0: 1, 1: -number}) is None


def test_a_killed_rank_is_reported_instead_of_the_errors_that_it_causes_in_others(tmp_path):
    report(tmp_path, 0, "RuntimeError")  # because rank 1 is gone
    assert "Rank 1 was killed" in str(_explain(tmp_path, {0: 1, 1: -9}))
    report(tmp_path, 1, "DataError")
    assert "traceback of 0" in str(_explain(tmp_path, {0: 1, 1: -9}))  # with an error file it is like any other rank
