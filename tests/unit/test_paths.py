"""Paths that libraries can handle."""

import glob
import os
import tempfile
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from grpo_cli.paths import plain_name, shorten_temporary_folder


@pytest.mark.parametrize("name", ["plain", "a[1]", "all *", "what?"])
def test_glob_finds_files_in_a_folder_with_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "weights.pt").write_text("7")
    with plain_name(folder) as plain:
        (found,) = glob.glob(f"{plain}/*.pt")
        assert Path(found).read_text() == "7"


@pytest.fixture
def temporary_folder(monkeypatch, tmp_path):
    """Set TMPDIR to a folder in `tmp_path` whose path has `num_bytes` bytes."""

    def use(num_bytes: int) -> Path:
        missing = num_bytes - len(os.fsencode(tmp_path)) - 1
        folder = tmp_path / ("t" * missing)
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return folder

    return use


def test_a_socket_fits_into_a_temporary_folder_with_a_long_path(temporary_folder):
    folder = temporary_folder(240)
    shorten_temporary_folder()
    made = tempfile.mkdtemp(prefix="pymp-")
    with Listener(os.path.join(made, "listener-abcdefgh"), family="AF_UNIX"):
        assert [path.name for path in folder.iterdir()] == [Path(made).name]  # the files are in the user's TMPDIR
    shorten_temporary_folder()
    assert os.environ["TMPDIR"] == tempfile.gettempdir()
    Path(tempfile.gettempdir()).unlink()
