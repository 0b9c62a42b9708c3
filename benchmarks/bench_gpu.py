"""One Hopper GPU at a real size: `python benchmarks/bench_gpu.py [overrides of r1zero train ...]`.

The shape of Qwen2.5-1.5B with random weights in bf16, 64 prompts x 8, lengths drawn log-normal with mean 600 and at
most 3,000. Generation stands beside vLLM's own `vllm bench throughput` on the same lengths, training beside the GPU's
peak.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from r1zero_loop import Forced, phases, r1zero, synthetic
from relay import Times, relay
from results import scratch, table
from workload import PROMPT_TOKENS, Workload

LONG = Workload("long", prompts=64, mean=600, longest=3000)
QWEN_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
OVERRIDES = ["cluster=gpu_1", "cluster.gradient_checkpointing=false", "cluster.offload_during_rollout=false"]
BF16_PEAKS = {"H100": 989e12, "H200": 989e12, "GH200": 989e12}  # FLOP/s without sparsity, by NVIDIA's data sheets


def measure(
    rounds: int,
    overrides: Sequence[str],
    *,
    workload: Workload = LONG,
    shape: Mapping[str, int] = QWEN_1_5B,
    peak_flops: float | None = None,
) -> dict[str, float]:
    """Medians. `mfu` is of forward and backward passes and optimizer, without recomputation (arXiv:2204.02311)."""
    command = [*synthetic(workload, scratch(), **shape), *overrides]
    times = {
        name: relay({name: (r1zero, command, Forced(workload.lengths, seeded))}, rounds=rounds)[name]
        for name, seeded in (("seeded", True), ("unseeded", False))  # one after the other: they do not fit together
    }
    seeded = times["seeded"]
    training_s = seeded.median_of(lambda s, r: sum(map(phases(s, r).get, ("forward", "backward", "optimizer"))))
    figures = {
        "seconds": seeded.median,
        "rollout_tokens_per_s": _rollout_speed(seeded),
        "rollout_tokens_per_s/unseeded": _rollout_speed(times["unseeded"]),
        "rollout_tokens_per_s/vllm": _vllm_speed(workload, scratch() / "model"),
        "swap_and_sync_share": seeded.median_of(lambda s, r: (phases(s, r)["sync"] + phases(s, r)["swap"]) / s),
        "peak_gib": max(report["peak_gib"] for report in seeded.reports),
        "model_flops_per_s": training_flops(workload.lengths, shape) / training_s,
    }
    return figures | ({"mfu": figures["model_flops_per_s"] / peak_flops} if peak_flops else {})


def _rollout_speed(times: Times) -> float:
    return times.median_of(lambda _, report: report["rollout/tokens"] / report["time/rollout"])


def _vllm_speed(workload: Workload, model: Path) -> float:
    """Tokens generated a second by vLLM's own benchmark. Its prompts are of other tokens, and a little longer."""
    lengths, result = scratch() / "lengths.csv", scratch() / "throughput.json"
    with lengths.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Timestamp", "Model", "Request tokens", "Response tokens"])
        rows.writerows([0, "GPT-4", PROMPT_TOKENS, length] for length in workload.lengths)
    options = {
        "model": model,
        "dataset-name": "burstgpt",
        "dataset-path": lengths,
        "num-prompts": len(workload.lengths),
        "output-json": result,
        "dtype": "bfloat16",
        "max-num-seqs": 256,
        "max-model-len": workload.longest + 512,
    }
    command = [f"--{name}={value}" for name, value in options.items()]
    subprocess.run([Path(sys.executable).parent / "vllm", "bench", "throughput", *command], check=True)
    return sum(workload.lengths) / json.loads(result.read_text())["elapsed_time"]


def training_flops(lengths: Sequence[int], shape: Mapping[str, int]) -> float:
    """Floating-point operations of a forward and a backward pass over all responses: 6 a weight and token, with the
    output layer for the responses' tokens alone, and those of causal attention.

    >>> one = {"hidden_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 3}
    >>> one |= {"num_hidden_layers": 1, "vocab_size": 5}
    >>> weights, tokens = 4 * 2 * 2 + 3 * 2 * 3, 1 + PROMPT_TOKENS
    >>> training_flops([1], one) == 6 * (weights * tokens + 2 * 5 * 1) + 6 * tokens**2 * 2
    True
    """
    hidden = shape["hidden_size"]
    key_and_value = 2 * hidden * hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    weights_a_layer = 2 * hidden * hidden + key_and_value + 3 * hidden * shape["intermediate_size"]
    flops = 0.0
    for length in lengths:
        tokens = length + PROMPT_TOKENS
        flops += 6 * shape["num_hidden_layers"] * (weights_a_layer * tokens + tokens**2 * hidden)
        flops += 6 * hidden * shape["vocab_size"] * length
    return flops


def report(figures: Mapping[str, float]) -> str:
    """The figures as a table in Markdown."""
    speed = figures["rollout_tokens_per_s"]
    rows = [
        ["a step, s", f"{figures['seconds']:.1f}"],
        ["generation, tokens/s", f"{speed:,.0f}"],
        ["... without seeds a request", f"{figures['rollout_tokens_per_s/unseeded']:,.0f}"],
        ["... of vLLM's own benchmark", f"{figures['rollout_tokens_per_s/vllm']:,.0f}"],
        ["r1zero / vLLM's own", f"{speed / figures['rollout_tokens_per_s/vllm']:.2f}"],
        ["training, model TFLOP/s", f"{figures['model_flops_per_s'] / 1e12:.1f}"],
        ["... of the peak (MFU)", f"{figures['mfu']:.1%}" if "mfu" in figures else "unknown: give --peak-tflops"],
        ["sync, sleep and wake, of a step", f"{figures['swap_and_sync_share']:.1%}"],
        ["GPU memory taken, GiB", f"{figures['peak_gib']:.1f}"],
    ]
    return table(["figure", "median"], rows)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, where it is not a known one")
    parser.add_argument("overrides", nargs="*", help="of r1zero train")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("it needs a GPU")
    name = torch.cuda.get_device_name()
    known = next((flops for gpu, flops in BF16_PEAKS.items() if gpu in name), None)
    peak_flops = 1e12 * options.peak_tflops if options.peak_tflops else known
    print(f"{name}\n\n{report(measure(options.rounds, [*OVERRIDES, *options.overrides], peak_flops=peak_flops))}")


if __name__ == "__main__":
    main()
