"""The lock of a run folder: a process holds it until it ends or dies."""

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


def test_the_error_for_a_lock_in_use_names_its_holder(holder, tmp_path):
    with (
        pytest.raises(SetupError, match=rf"{tmp_path} is in use \(process {holder.pid} on "),
        locked(tmp_path / "lock", wait_s=0),
    ):
        pass


def test_a_lock_is_free_after_its_holder_was_killed(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    with locked(tmp_path / "lock"):  # waits until the kernel has ended the process
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


def test_a_lock_is_free_after_its_with_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", wait_s=0):
            pass
