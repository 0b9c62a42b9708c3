"""How well a step used the machine: speed, share of the peak, memory, and waiting.

What ranks count goes into a `Tally`, under names that `performance` replaces by the metrics of all ranks.
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
    """What the share of the peak is taken of."""

    flops: float  # a second, dense in bf16, of all GPUs together
    shape: ShapeConfig
    has_adapters: bool


def find_peak(model_folder: Path, config: TrainConfig) -> Peak | None:
    """None on a CPU, and where the GPU or the model's shape is not a known one."""
    if config.cluster.device == Device.cpu:
        return None
    import torch

    gpu = find_gpu(torch.cuda.get_device_name())
    try:
        shape = read_shape(model_folder / "config.json")
    except (ValueError, KeyError):
        return None
    return Peak(config.cluster.ranks * gpu.peak_flops, shape, config.model.lora.rank > 0) if gpu else None


def tally_trained(tally: Tally, lengths: Iterable[tuple[int, int]], epochs: int) -> None:
    """Count sequences of these (prompt, response) tokens that were trained on `epochs` times."""
    work = Work.of(lengths) * epochs
    tally.sum("perf/trained_tokens", work.tokens)
    tally.sum(RESPONSES, work.responses)
    tally.sum(SQUARES, work.squares)


def tally_busy(tally: Tally, rank: int, seconds: float) -> None:
    """Count what a rank computed in the update phase: seconds, or anything that is in proportion to them."""
    tally.sum(f"{BUSY}{rank}", seconds)


def performance(metrics: Mapping[str, float], peak: Peak | None = None) -> dict[str, float]:
    """The metrics of a step, `perf/...` among them.

    `perf/tokens_per_s` is of generated tokens over a step without evaluation; the other speeds are over their own
    phases. `perf/mfu` is the share of the GPUs' peak in the update phase, by model FLOPs: what is computed again does
    not count (arXiv:2204.02311, appendix B). `perf/idle_share/<rank>` is the share of the busiest rank's time that this
    rank waits for it, `perf/idle_share` the mean of all.
    """
    counted = {name: metrics[name] for name in metrics if name in (RESPONSES, SQUARES) or name.startswith(BUSY)}
    figures = {name: value for name, value in metrics.items() if name not in counted}
    if "rollout/tokens" in metrics:
        step_s = metrics["time/step"] - metrics.get("time/eval", 0.0)
        figures["perf/tokens_per_s"] = metrics["rollout/tokens"] / step_s
        figures["perf/generation_tokens_per_s"] = metrics["rollout/tokens"] / metrics["time/rollout"]
    figures["perf/training_tokens_per_s"] = metrics["perf/trained_tokens"] / metrics["time/update"]
    if peak:
        work = Work(metrics["perf/trained_tokens"], counted[RESPONSES], counted[SQUARES])
        flops = training_flops(peak.shape, work, has_adapters=peak.has_adapters)
        figures["perf/mfu"] = flops / (metrics["time/update"] * peak.flops)
    busy = {name.removeprefix(BUSY): seconds for name, seconds in counted.items() if name.startswith(BUSY)}
    return figures | _idle_shares(busy)


def _idle_shares(busy: Mapping[str, float]) -> dict[str, float]:
    """Nothing of a rank alone, which waits for none, and where no rank did anything."""
    longest = max(busy.values(), default=0.0)
    if len(busy) < 2 or not longest:
        return {}
    shares = {f"perf/idle_share/{rank}": 1 - seconds / longest for rank, seconds in busy.items()}
    return {"perf/idle_share": sum(shares.values()) / len(shares)} | shares


def peak_memory_gib() -> float:
    """The most memory that was taken: of a GPU since the last call, by all; on a CPU ever, by this process."""
    import torch

    if not torch.cuda.is_initialized():
        status = Path("/proc/self/status")  # Linux
        lines = status.read_text().splitlines() if status.is_file() else []
        return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)
    # Torch counts as allocated what a vLLM asleep has given back: only how much its own count fell since is of use.
    free, total = torch.cuda.mem_get_info()
    fell = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    return (total - free + fell) / GIB
