"""Limits of the machine, each tested in a separate process."""

import shutil
import subprocess
import sys

import pytest

CHECK = "from grpo_cli import limits\nlimits.check_open_files()\nlimits.check_shared_memory()"


def check(*wrapper: str, before: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([*wrapper, sys.executable, "-c", f"{before}\n{CHECK}"], capture_output=True, text=True)


def limit_open_files(soft: int, hard: int) -> str:
    return f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"


def test_this_machine_passes():
    assert check().returncode == 0


def test_too_few_open_files_are_reported():
    assert "SetupError: A process may have 64 open files here" in check(before=limit_open_files(64, 64)).stderr


def test_a_soft_limit_is_raised():
    assert check(before=limit_open_files(64, 4096)).returncode == 0


def test_read_only_shared_memory_is_reported():
    read_only = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", "/dev/shm", "/dev/shm")
    if shutil.which("bwrap") is None or subprocess.run([*read_only, "true"]).returncode:
        pytest.skip("needs bwrap, to make /dev/shm read-only")
    assert "SetupError: /dev/shm cannot be used (Read-only file system)" in check(*read_only).stderr
