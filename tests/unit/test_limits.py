"""What a machine must allow; each seen in a separate process."""

import resource
import shutil
import subprocess
import sys

import pytest

CHECK = [sys.executable, "-c", "from grpo_cli import limits\nlimits.check_open_files()\nlimits.check_shared_memory()"]


def check(*wrapper: str, open_files: tuple[int, int] | None = None) -> subprocess.CompletedProcess:
    def limit() -> None:
        if open_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, open_files)

    return subprocess.run([*wrapper, *CHECK], capture_output=True, text=True, preexec_fn=limit)


def test_a_machine_as_it_is_will_do():
    assert check().returncode == 0


def test_too_few_open_files_are_named_with_how_to_raise_them():
    assert "SetupError: A process may hold 64 open files here" in check(open_files=(64, 64)).stderr


def test_a_soft_limit_is_raised():
    assert check(open_files=(64, 4096)).returncode == 0


def test_shared_memory_that_cannot_be_written_is_named():
    read_only = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", "/dev/shm", "/dev/shm")
    if shutil.which("bwrap") is None or subprocess.run([*read_only, "true"]).returncode:
        pytest.skip("needs bwrap, to make /dev/shm read-only")
    assert "SetupError: /dev/shm cannot be used (Read-only file system)" in check(*read_only).stderr
