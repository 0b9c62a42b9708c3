"""gpu_check on a CPU: its stages run with tiny shapes; what they measure is nobody's business here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GPU_CHECK = Path(__file__).parents[2] / "benchmarks/gpu_check.py"


def gpu_check(*arguments: str, first_in_path: str = "") -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [first_in_path, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, GPU_CHECK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": path})


def figures(folder: Path) -> dict[str, dict]:
    """Of each stage that was done, by name."""
    (file,) = folder.glob("gpu-*.json")
    assert "| figure | value |" in file.with_suffix(".md").read_text()
    stages = json.loads(file.read_text())["stages"]
    assert {name: stage["fault"] for name, stage in stages.items()} == dict.fromkeys(stages)
    return {name: stage["figures"] for name, stage in stages.items()}


def test_the_training_stages_need_no_vllm(tmp_path):
    (tmp_path / "vllm.py").write_text("raise ImportError('a stage of training imports vLLM')")
    stages = ["deepspeed", "attention", "logprobs", "update", "checkpointing"]
    done = gpu_check("--tiny", "--minutes=14", f"--out={tmp_path}", *stages, first_in_path=f"{tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(tmp_path)
    assert list(found) == stages
    assert found["attention"]["log-probabilities in a row and alone: mean difference"] < 0.05
    assert found["update"]["gradient's norm"] > 0


def test_the_stages_of_the_whole_stack_run(tmp_path):
    stages = ["doctor", "train", "generation", "bench"]
    done = gpu_check("--tiny", "--minutes=14", f"--out={tmp_path}", *stages)
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(tmp_path)
    assert list(found) == stages
    assert found["train"]["exit status"] == 0
    assert any("not seeded" in name for name in found["generation"])
    assert "r1zero / vLLM's own" in found["bench"]


def test_without_a_gpu_it_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = gpu_check()
    assert done.returncode == 1
    assert "gpu_check needs a CUDA GPU, and torch sees none here." in done.stderr
