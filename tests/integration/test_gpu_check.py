"""gpu_check on a CPU: its stages run with tiny shapes. No test looks at what they measure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GPU_CHECK = Path(__file__).parents[2] / "benchmarks/gpu_check.py"
ON_A_FAKE_GPU = """
import sys
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import torch
from gpu_stage import Scale, tiny
from relay import on_ranks
from torch.nn.functional import scaled_dot_product_attention


class OnGPU(Scale):
    is_on_gpu = True


def varlen_attn(query, key, value, ends, _, longest, __, *, scale, window_size, enable_gqa):
    left, right = window_size
    assert right == 0 and enable_gqa and ends.dtype == torch.int32
    assert longest == ends.diff().max() and ends[-1] == len(query)

    def seen(length):
        distance = torch.arange(length)[:, None] - torch.arange(length)
        return (distance >= 0) & (distance <= (length if left == -1 else left))

    parts = zip(*(each.split(ends.diff().tolist()) for each in (query, key, value)))
    attended = [
        scaled_dot_product_attention(
            *(each.transpose(0, 1) for each in part), attn_mask=seen(len(part[0])), scale=scale, enable_gqa=True
        )
        for part in parts
    ]
    return torch.cat(attended, dim=1).transpose(0, 1)


def stages(_):
    import gpu_training

    small = tiny(Path(sys.argv[1]))
    scale = OnGPU(**{field.name: getattr(small, field.name) for field in fields(Scale)})
    for stage in (gpu_training.attention, gpu_training.logprobs, gpu_training.checkpointing):
        stage(scale)


BYTES = dict.fromkeys(("memory_allocated", "max_memory_allocated", "max_memory_reserved"), lambda: 2**30)
OTHER = {
    "reset_peak_memory_stats": lambda: None,
    "mem_get_info": lambda: (2**30, 2**31),
    "get_device_name": lambda: "NVIDIA H200",
    "host_memory_stats": lambda: {"allocated_bytes.current": 2**31},
}

if __name__ == "__main__":
    with (
        patch.multiple(torch.cuda, **BYTES, **OTHER),
        patch("torch.compile", lambda function: function),
        patch("torch.nn.attention.varlen.varlen_attn", varlen_attn),
    ):
        on_ranks(1, None, stages)
"""


def gpu_check(*arguments: str, first_in_path: str = "") -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [first_in_path, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, GPU_CHECK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": path})


def figures(folder: Path) -> dict[str, dict]:
    """The figures of each stage that was run, by name."""
    (file,) = folder.glob("gpu-*.json")
    assert "| figure | value |" in file.with_suffix(".md").read_text()
    stages = json.loads(file.read_text())["stages"]
    assert {name: stage["fault"] for name, stage in stages.items()} == dict.fromkeys(stages)
    return {name: stage["figures"] for name, stage in stages.items()}


def test_the_training_stages_need_no_vllm(tmp_path):
    (tmp_path / "vllm.py").write_text("raise ImportError('a stage of training imports vLLM')")
    stages = ["deepspeed", "attention", "update"]
    done = gpu_check("--tiny", "--minutes=14", f"--out={tmp_path}", *stages, first_in_path=f"{tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(tmp_path)
    assert list(found) == stages
    assert found["attention"]["log-probabilities in a row and alone: mean difference"] < 0.05
    assert found["update"]["gradient's norm"] > 0


def test_the_figures_of_a_gpu_are_reported_for_a_fake_one(tmp_path):
    command = [sys.executable, "-c", ON_A_FAKE_GPU, f"{tmp_path}"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, cwd=GPU_CHECK.parent, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr
    reported = {}
    for line in done.stdout.splitlines():
        if line.startswith("figure: "):
            reported |= json.loads(line.removeprefix("figure: "))
    assert reported["varlen_attn: largest difference from float32, of the largest value"] < 0.05
    assert reported["peak in tensors (max_memory_allocated), GiB"] == 1
    assert reported["... pinned in CPU memory, GiB (second)"] == 2
    assert reported["... MFU"].endswith("%")


def test_the_stages_of_the_whole_stack_run(tmp_path):
    stages = ["train", "generation", "bench"]
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
    assert "gpu_check needs a CUDA GPU, but torch finds none." in done.stderr
