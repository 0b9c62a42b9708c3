"""One Hopper GPU at a real size: `python benchmarks/bench_gpu.py [overrides of r1zero train ...]`.

The shape of Qwen2.5-1.5B with random weights in bf16, 64 prompts x 8, lengths drawn log-normal with mean 600 and at
most 3,000. Generation is compared with vLLM's own `vllm bench throughput` on the same lengths, with as many sequences
at a time and the same share of memory; training with the GPU's peak. The step is timed undisturbed: its parts come
from CUDA events. A first step with an eighth of the lengths warms up.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from r1zero_loop import Forced, composed, phases, r1zero, synthetic
from relay import no_rank, relay
from results import gpu, scratch, table
from workload import PROMPT_TOKENS, Workload

from grpo_cli.config.model import ShapeConfig
from grpo_cli.hardware import find_gpu
from grpo_cli.planner import flops

LONG = Workload("long", prompts=64, mean=600, longest=3000)
QWEN_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
OVERRIDES = [
    "cluster=gpu_1",
    "cluster.gradient_checkpointing=false",
    "cluster.offload_during_rollout=false",
    "cluster.vllm.max_num_seqs=1024",  # vLLM's own default on such a GPU
]
# `vllm bench throughput`, which is not on every machine by that name.
VLLM_BENCH = """
from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
"""


def peak_flops(gpu_name: str) -> float | None:
    """Of a GPU in bf16; None of one that is not known."""
    known = find_gpu(gpu_name)
    return known.peak_flops if known else None


def measure_steps(
    rounds: int, overrides: Sequence[str], workload: Workload, shape: Mapping[str, int], peak: float | None = None
) -> dict[str, float]:
    """Medians of `rounds` steps. `mfu` is of all that the trainer does in a step but making room for vLLM, without
    recomputation (arXiv:2204.02311); `part/...` are seconds.
    """
    eighth = [max(1, length // 8) for length in workload.lengths]
    runners = {"r1zero": (r1zero, overrides, Forced(workload.lengths, first=eighth))}
    times = relay(runners, rounds=rounds, warm_up=1)["r1zero"]
    work = training_flops(workload.lengths, shape)
    figures = {
        "seconds": times.median,
        "rollout_tokens_per_s": times.median_of(lambda _, report: report["rollout/tokens"] / report["time/rollout"]),
        "model_flops_per_s": times.median_of(lambda s, r: work / (r["time/update"] - phases(s, r)["swap"])),
        "peak_gib": max(report["peak_gib"] for report in times.reports),
    }
    for name in phases(times.seconds[0], times.reports[0]):
        figures[f"part/{name}"] = times.median_of(lambda s, r, name=name: phases(s, r)[name])
    return figures | ({"mfu": figures["model_flops_per_s"] / peak} if peak else {})


def vllm_speed(overrides: Sequence[str], workload: Workload, model: Path) -> float:
    """Tokens generated a second by vLLM's own benchmark. Its prompts are of other tokens, and a little longer."""
    cluster = composed(overrides, scratch() / "unused").cluster
    memory = (
        {"kv-cache-memory-bytes": int(cluster.vllm.kv_cache_gib * 2**30)}
        if cluster.device == "cpu"
        else {"gpu-memory-utilization": cluster.vllm.gpu_memory_utilization}
    )
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
        "max-num-seqs": cluster.vllm.max_num_seqs,
        "max-model-len": workload.longest + 512,
        **memory,
    }
    command = [sys.executable, "-c", VLLM_BENCH, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=no_rank())
    if done.returncode:
        print(done.stdout)
        last = [line for line in done.stdout.splitlines() if line.strip()][-1:]
        raise RuntimeError(f"vLLM's own benchmark ended with status {done.returncode}: {''.join(last)}")
    return sum(workload.lengths) / json.loads(result.read_text())["elapsed_time"]


def training_flops(lengths: Sequence[int], shape: Mapping[str, int]) -> float:
    """Floating-point operations of a forward and a backward pass over all responses of a step."""
    return flops.training_flops(shape_of(shape), flops.Work.of([(PROMPT_TOKENS, length) for length in lengths]))


def shape_of(shape: Mapping[str, int]) -> ShapeConfig:
    """The workload's model as the planner sees it."""
    return ShapeConfig(
        num_layers=shape["num_hidden_layers"],
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        head_dim=shape["hidden_size"] // shape["num_attention_heads"],
        vocab_size=shape["vocab_size"],
        tied_embeddings=True,
        max_model_len=4096,
    )


def rows_of_steps(figures: Mapping[str, float]) -> list[list[str]]:
    """What `measure_steps` found, in words."""
    parts = {name.removeprefix("part/"): s for name, s in figures.items() if name.startswith("part/")}
    share = (parts["sync"] + parts["swap"]) / figures["seconds"]
    return [
        ["a step, s", f"{figures['seconds']:.1f}"],
        ["... its parts, s", ", ".join(f"{name} {s:.1f}" for name, s in parts.items())],
        ["generation, tokens/s", f"{figures['rollout_tokens_per_s']:,.0f}"],
        ["training, model TFLOP/s", f"{figures['model_flops_per_s'] / 1e12:.1f}"],
        ["... of the peak (MFU)", f"{figures['mfu']:.1%}" if "mfu" in figures else "unknown: give --peak-tflops"],
        ["sync, sleep and wake, of a step", f"{share:.1%}"],
        ["GPU memory in use at its peak (sampled every 20 ms), GiB", f"{figures['peak_gib']:.1f}"],
    ]


def rows_of_vllm(figures: Mapping[str, float], vllm_tokens_per_s: float) -> list[list[str]]:
    """The comparison with `vllm_speed`, in words."""
    return [
        ["generation of vLLM's own benchmark, tokens/s", f"{vllm_tokens_per_s:,.0f}"],
        ["r1zero / vLLM's own", f"{figures['rollout_tokens_per_s'] / vllm_tokens_per_s:.2f}"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, where it is not a known one")
    parser.add_argument("overrides", nargs="*", help="of r1zero train")
    options = parser.parse_args()
    card = gpu()
    if card is None:
        parser.error("it needs a CUDA GPU, and torch sees none here")
    peak = 1e12 * options.peak_tflops if options.peak_tflops else peak_flops(card["name"])
    overrides = [*synthetic(LONG, scratch(), device="cuda", **QWEN_1_5B), *OVERRIDES, *options.overrides]
    figures = measure_steps(options.rounds, overrides, LONG, QWEN_1_5B, peak)
    rows = rows_of_steps(figures) + rows_of_vllm(figures, vllm_speed(overrides, LONG, scratch() / "model"))
    print(f"{card['name']}\n\n{table(['figure', 'median'], rows)}")


if __name__ == "__main__":
    main()
