"""The notebook and the Docker image of the docs."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_quickstart_notebook_runs(tmp_path, monkeypatch):
    """Its cells run here one after the other, with two steps, as they would in Jupyter."""
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "STEPS = 200" in code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    exec(code.replace("STEPS = 200", "STEPS = 2"), names)
    assert list(names["metrics"].index) == [0, 1, 2]
    assert (tmp_path / "runs/notebook_eval").is_dir()


def _docker_runs() -> bool:
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _docker_runs(), reason="needs a running Docker daemon")
def test_the_image_of_the_cpu_stack_builds_and_starts():
    built = subprocess.run(["docker", "build", "--quiet", ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    shown = subprocess.run(["docker", "run", "--rm", built.stdout.strip()], capture_output=True, text=True)
    assert "r1zero train" in shown.stdout, shown.stderr
