"""Names that libraries take for what they are."""

import glob
import os
import tempfile
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from grpo_cli.paths import plain_name, shorten_temporary_folder


@pytest.mark.parametrize("name", ["plain", "a[1]", "all *", "what?"])
def test_files_are_found_by_a_pattern_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "weights.pt").write_text("7")
    with plain_name(folder) as plain:
        (found,) = glob.glob(f"{plain}/*.pt")
        assert Path(found).read_text() == "7"


@pytest.fixture
def temporary_folder(monkeypatch, tmp_path):
    """As TMPDIR, below `tmp_path`, with a path of so many bytes."""

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
        assert [path.name for path in folder.iterdir()] == [Path(made).name]  # the files are where the user wants them
    shorten_temporary_folder()
    assert os.environ["TMPDIR"] == tempfile.gettempdir()
    Path(tempfile.gettempdir()).unlink()
