import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

GPU_CHECK = Path(__file__).parents[2] / "benchmarks/gpu_check.py"


@pytest.fixture(autouse=True)
def gpu() -> None:
    """Without a GPU these tests are skipped, with the reason."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture
def measured(tmp_path) -> Callable[[str], dict]:
    """A function that runs a stage of gpu_check with tiny shapes and returns its figures and `gpu_gib`."""

    def run(stage: str) -> dict:
        command = [sys.executable, GPU_CHECK, stage, "--tiny", "--minutes=14", f"--out={tmp_path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        (file,) = tmp_path.glob("gpu-*.json")
        written = json.loads(file.read_text())
        return {**written["stages"][stage]["figures"], "gpu_gib": written["machine"]["gpu"]["gib"]}

    return run
