"""The code that a run was started with: recorded if it can be known, and never a reason to fail."""

import shutil
import subprocess
from pathlib import Path

import pytest

from grpo_cli import __version__
from grpo_cli.runs import code
from grpo_cli.runs.code import record_code, recorded_code, this_code

UNKNOWN = {"version": __version__, "commit": None, "changed": None}


def git(place: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    return subprocess.run(["git", *identity, *arguments], cwd=place, capture_output=True, check=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not shutil.which("git"):
        pytest.skip("needs git")
    place = tmp_path / "checkout"
    place.mkdir()
    (place / "file").write_text("old")
    for arguments in (["init"], ["add", "file"], ["commit", "-m", "m"], ["tag", "v1"]):
        git(place, *arguments)
    return place


def test_a_checkout_has_its_commit_and_whether_its_files_differ(checkout):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "notes").write_text("git does not know this file")
    assert this_code(checkout) == UNKNOWN | {"commit": commit, "changed": False}
    (checkout / "file").write_text("new")
    assert this_code(checkout) == UNKNOWN | {"commit": commit, "changed": True}


def test_the_checkout_of_a_git_hook_is_not_described(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert this_code(checkout)["commit"]


def test_packages_installed_inside_a_checkout_have_no_commit(checkout):
    (checkout / "site-packages").mkdir()
    assert this_code(checkout / "site-packages") == UNKNOWN


@pytest.mark.parametrize("is_installed", [False, True])
def test_without_a_git_that_works_there_is_no_commit(tmp_path, monkeypatch, is_installed):
    (tmp_path / ".git").mkdir()  # not a checkout that git can read
    if not is_installed:
        monkeypatch.setenv("PATH", "")
    assert this_code(tmp_path) == UNKNOWN


def test_a_start_with_the_same_code_adds_nothing_and_one_with_other_code_is_added(tmp_path, monkeypatch):
    assert recorded_code(tmp_path) == []
    codes = [UNKNOWN | {"commit": commit} for commit in ("a", "a", "b", "a")]
    for each in codes:
        monkeypatch.setattr(code, "this_code", lambda each=each: each)
        record_code(tmp_path)
    assert recorded_code(tmp_path) == [codes[0], codes[2], codes[3]]


def test_a_damaged_record_does_not_stop_a_start(tmp_path):
    (tmp_path / "code.json").write_bytes(b"\xff{")
    record_code(tmp_path)
    assert recorded_code(tmp_path) == [this_code()]
