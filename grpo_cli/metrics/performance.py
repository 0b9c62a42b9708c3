"""How well a step used the machine: speed, MFU, memory and idle time.

Each rank counts its work in a `Tally`; `performance` replaces these counts with the metrics of all ranks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grpo_cli.choices import Device
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import find_gpu
from grpo_cli.metrics.metrics import Tally
from grpo_cli.planner.flops import Work, training_flops
from grpo_cli.planner.shape import read_shape

GIB = 2**30
RESPONSES, SQUARES, BUSY = "perf/trained_responses", "perf/trained_squares", "perf/busy_s/"


@dataclass(frozen=True)
class Peak:
    """The peak speed that MFU is relative to, and the model's shape."""

    flops: float  # per second, dense in bf16, of all GPUs together
    shape: ShapeConfig
    has_adapters: bool


def find_peak(model_folder: Path, config: TrainConfig) -> Peak | None:
    """The peak of this run, or None on a CPU or if the GPU or the model's shape is unknown."""
    if config.cluster.device == Device.cpu:
        return None
    import torch

    gpu = find_gpu(torch.cuda.get_device_name())
    try:
        shape = read_shape(model_folder / "config.json")
    except (ValueError, KeyError):
        return None
    return Peak(config.cluster.train_ranks * gpu.peak_flops, shape, config.model.lora.rank > 0) if gpu else None


def tally_trained(tally: Tally, lengths: Iterable[tuple[int, int]], epochs: int) -> None:
    """Count sequences with these (prompt, response) lengths that were trained on `epochs` times."""
    work = Work.of(lengths) * epochs
    tally.sum("perf/trained_tokens", work.tokens)
    tally.sum(RESPONSES, work.responses)
    tally.sum(SQUARES, work.squares)


def tally_busy(tally: Tally, rank: int, seconds: float) -> None:
    """Count a rank's work in the update phase: seconds, or anything proportional to them."""
    tally.sum(f"{BUSY}{rank}", seconds)


def performance(metrics: Mapping[str, float], peak: Peak | None = None) -> dict[str, float]:
    """The metrics of a step, with `perf/...`.

    `perf/tokens_per_s` is generated tokens per second of the step without evaluation; the other speeds use the time of
    their own phase. `perf/mfu` is the share of the GPUs' peak in the update phase. It counts model FLOPs, without
    recomputed activations (arXiv:2204.02311, appendix B). `perf/idle_share/<rank>` is the share of the busiest rank's
    time for which this rank waits; `perf/idle_share` is the mean over ranks.
    """
    counted = {name: metrics[name] for name in metrics if name in (RESPONSES, SQUARES) or name.startswith(BUSY)}
    results = {name: value for name, value in metrics.items() if name not in counted}
    if "rollout/tokens" in metrics:
        step_s = metrics["time/step"] - metrics.get("time/eval", 0.0)
        results["perf/tokens_per_s"] = metrics["rollout/tokens"] / step_s
        results["perf/generation_tokens_per_s"] = metrics["rollout/tokens"] / metrics["time/rollout"]
    results["perf/training_tokens_per_s"] = metrics["perf/trained_tokens"] / metrics["time/update"]
    if peak:
        work = Work(metrics["perf/trained_tokens"], counted[RESPONSES], counted[SQUARES])
        flops = training_flops(peak.shape, work, has_adapters=peak.has_adapters)
        results["perf/mfu"] = flops / (metrics["time/update"] * peak.flops)
    busy = {name.removeprefix(BUSY): seconds for name, seconds in counted.items() if name.startswith(BUSY)}
    return results | _idle_shares(busy)


def _idle_shares(busy: Mapping[str, float]) -> dict[str, float]:
    """The idle shares; empty for a single rank, and if no rank did anything."""
    longest = max(busy.values(), default=0.0)
    if len(busy) < 2 or not longest:
        return {}
    shares = {f"perf/idle_share/{rank}": 1 - seconds / longest for rank, seconds in busy.items()}
    return {"perf/idle_share": sum(shares.values()) / len(shares)} | shares


def peak_memory_gib() -> float:
    """The peak memory: of the whole GPU since the last call; on a CPU, of this process since its start."""
    import torch

    if not torch.cuda.is_initialized():
        status = Path("/proc/self/status")  # Linux
        lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
        return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)
    # Torch still counts the memory that a sleeping vLLM has freed. So only use how far its count fell from the peak.
    free, total = torch.cuda.mem_get_info()
    fell = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    return (total - free + fell) / GIB
