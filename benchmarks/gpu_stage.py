"""Runs a stage of gpu_check.py in this process, as the only rank: `python gpu_stage.py NAME --folder FOLDER [--tiny]`.

Prints a line `figure: {label: value}` for each result, and `fault: text` if the stage fails.
"""

import argparse
import json
import os
import pkgutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from bench_gpu import LONG, OVERRIDES, QWEN_1_5B
from relay import on_ranks
from workload import PROMPT_TOKENS, Workload

SEEN, FAULT = "figure: ", "fault: "
STAGES = {
    "deepspeed": "gpu_training:deepspeed",
    "attention": "gpu_training:attention",
    "logprobs": "gpu_training:logprobs",
    "update": "gpu_training:update",
    "checkpointing": "gpu_training:checkpointing",
    "doctor": "gpu_engine:doctor",
    "train": "gpu_engine:train",
    "generation": "gpu_engine:generation",
    "bench": "gpu_engine:bench",
}


@dataclass(frozen=True)
class Scale:
    """The size of a stage. The first stage that needs the model writes it to `folder`."""

    folder: Path
    device: str
    workload: Workload
    shape: Mapping[str, int]
    overrides: Sequence[str]  # of r1zero train
    row: int  # tokens of one row of sequences
    chunk_values: Sequence[int]
    new_tokens: int  # of each request
    repeats: int

    @property
    def is_on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def row_lengths(self) -> list[int]:
        """The first sequences of the workload, prompt and response, that fit into one row."""
        lengths = [length + PROMPT_TOKENS for length in self.workload.lengths]
        return [length for length, end in zip(lengths, accumulate(lengths), strict=True) if end <= self.row]


def full(folder: Path) -> Scale:
    return Scale(
        folder,
        "cuda",
        LONG,
        QWEN_1_5B,
        OVERRIDES,
        row=8192,
        chunk_values=(2**25, 2**26, 2**27, 2**28),
        new_tokens=200,
        repeats=5,
    )


def tiny(folder: Path) -> Scale:
    """Tiny shapes, on a GPU if there is one, otherwise on the CPU."""
    import torch

    is_on_gpu = torch.cuda.is_available()
    shape = {
        "vocab_size": 1100,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    place = ["cluster=gpu_1"] if is_on_gpu else ["cluster=cpu", "cluster.dtype=bf16", "cluster.zero_stage=2"]
    return Scale(
        folder,
        "cuda" if is_on_gpu else "cpu",
        Workload("small", prompts=2, group_size=2, mean=6, longest=12),
        shape,
        [*place, "cluster.vllm.enforce_eager=true", "cluster.vllm.max_num_seqs=64"],
        row=64,
        chunk_values=(2**12, 2**14),
        new_tokens=2,
        repeats=1,
    )


def tell(label: str, value: float | str) -> None:
    """Print one figure; the label contains the unit."""
    print(f"\n{SEEN}{json.dumps({label: value})}", flush=True)


def seconds(work: Callable[[], object]) -> float:
    """The seconds that `work` takes, including its work on the GPU."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def median_s(work: Callable[[], object], repeats: int) -> float:
    """The median seconds of `repeats` calls, after one that warms up."""
    work()
    return statistics.median(seconds(work) for _ in range(repeats))


def peak_gib_of(work: Callable[[], object]) -> float:
    """The peak GPU memory in tensors while `work` runs, minus that before."""
    import torch

    _wait()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    _wait()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STAGES)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the model, shared by the stages")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    scale = (tiny if options.tiny else full)(options.folder)
    if not scale.is_on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        on_ranks(1, None, lambda _: pkgutil.resolve_name(STAGES[options.name])(scale))
    except BaseException as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"\n{FAULT}{message}", flush=True)
        raise


if __name__ == "__main__":
    main()
