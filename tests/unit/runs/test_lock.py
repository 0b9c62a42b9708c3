"""A lock of a run folder, held by a process until it ends or dies."""

import os
import signal
import subprocess
import sys

import pytest

from grpo_cli.errors import SetupError
from grpo_cli.runs.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from grpo_cli.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_that_is_held_is_refused_with_who_holds_it(holder, tmp_path):
    with (
        pytest.raises(SetupError, match=rf"{tmp_path} is in use by another start of it \(process {holder.pid} on "),
        locked(tmp_path / "lock", wait_s=0),
    ):
        pass


def test_a_holder_that_is_killed_holds_it_no_more(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    with locked(tmp_path / "lock"):  # which waits for the kernel to be done
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


def test_it_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", wait_s=0):
            pass
