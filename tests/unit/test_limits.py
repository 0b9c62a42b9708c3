"""Limits of the machine, each tested in a separate process."""

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


def test_this_machine_passes():
    assert check().returncode == 0


def test_too_few_open_files_are_reported():
    assert "SetupError: A process may have 64 open files here" in check(open_files=(64, 64)).stderr


def test_a_soft_limit_is_raised():
    assert check(open_files=(64, 4096)).returncode == 0


def test_read_only_shared_memory_is_reported():
    read_only = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", "/dev/shm", "/dev/shm")
    if shutil.which("bwrap") is None or subprocess.run([*read_only, "true"]).returncode:
        pytest.skip("needs bwrap, to make /dev/shm read-only")
    assert "SetupError: /dev/shm cannot be used (Read-only file system)" in check(*read_only).stderr
