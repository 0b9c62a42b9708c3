"""The peak speed of GPUs and of this machine's CPU: the roofline behind time estimates and MFU."""

import ctypes
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """One GPU, or the CPU cores of one rank. Bandwidths are in bytes per second."""

    name: str  # of a GPU: words that the driver's name for it contains
    peak_flops: float  # FLOP/s of dense matrix products; GPU: bf16 without sparsity; CPU: fp32
    bandwidth: float  # of the memory
    link: float  # to another GPU or rank of the same machine, in one direction
    memory_gib: float | None = None


def _gpu(name: str, tflops: float, memory_gb_s: float, link_gb_s: float, memory_gib: float) -> Hardware:
    return Hardware(name, 1e12 * tflops, 1e9 * memory_gb_s, 1e9 * link_gb_s, memory_gib)


PCIE_4, PCIE_5 = 32, 64  # GB/s of 16 lanes in one direction
# From NVIDIA's data sheets. Most give FLOP/s with sparsity, which is twice the number here. GeForce numbers are for
# accumulation in fp32. One direction of NVLink is half of its total. A family name alone means the SXM card.
GPUS = (
    _gpu("A100", 312, 2039, 300, 80),
    _gpu("A100 40GB", 312, 1555, 300, 40),
    _gpu("A100 PCIe", 312, 1935, PCIE_4, 80),
    _gpu("A100 PCIe 40GB", 312, 1555, PCIE_4, 40),
    _gpu("H100", 989, 3350, 450, 80),
    _gpu("H100 PCIe", 756, 2000, PCIE_5, 80),
    _gpu("H100 NVL", 835, 3900, 300, 94),
    _gpu("H200", 989, 4800, 450, 141),
    _gpu("H200 NVL", 835, 4800, 450, 141),
    _gpu("GH200", 989, 4000, 450, 96),
    _gpu("B200", 2250, 8000, 900, 180),
    _gpu("A10", 125, 600, PCIE_4, 24),
    _gpu("A40", 149.7, 696, PCIE_4, 48),
    _gpu("RTX A6000", 154.8, 768, PCIE_4, 48),
    _gpu("L4", 121, 300, PCIE_4, 24),
    _gpu("L40", 181, 864, PCIE_4, 48),
    _gpu("L40S", 362, 864, PCIE_4, 48),
    _gpu("RTX 6000 Ada", 364.2, 960, PCIE_4, 48),
    _gpu("RTX 3090", 71, 936, PCIE_4, 24),
    _gpu("RTX 4090", 165.2, 1008, PCIE_4, 24),
    _gpu("RTX 5090", 209.5, 1792, PCIE_5, 32),
)
MATRIX, VALUES = 512, 2**23  # measuring a CPU: size of the square matrix to multiply, number of fp32 values to copy
MEASURE_S, MIN_TRIES = 0.1, 10  # for each of the two measurements


def find_gpu(name: str) -> Hardware | None:
    """The known GPU whose words are all in `name`; of several, the one with the most words. None if there is none.

    >>> find_gpu("NVIDIA A100-SXM4-40GB").name, find_gpu("NVIDIA H100 80GB HBM3").name, find_gpu("NVIDIA L40S").name
    ('A100 40GB', 'H100', 'L40S')
    >>> find_gpu("AMD Instinct MI300X")
    """
    words = _words(name)
    if "mig" in words:
        return None  # a slice of a GPU
    known = [gpu for gpu in GPUS if _words(gpu.name) <= words]
    return max(known, key=lambda gpu: len(_words(gpu.name)), default=None)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def measure_cpu(ranks: int, threads: int | None) -> Hardware:
    """This machine's speed for one of `ranks` processes with `threads` threads each, measured in tenths of a second.

    Measures one core and assumes that the others are the same. If numpy was imported before, it may use all cores.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several threads would wait for other processes
    import numpy as np

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = min(cores / ranks, threads or cores)
    matrix = np.ones((MATRIX, MATRIX), np.float32)
    values, copy = np.ones(VALUES, np.float32), np.ones(VALUES, np.float32)
    flops = 2 * MATRIX**3 / _fastest(lambda: matrix @ matrix)
    bandwidth = 2 * values.nbytes / _fastest(lambda: np.copyto(copy, values)) / ranks
    # Ranks exchange data through sockets, which copy it about four times.
    return Hardware(f"{used:g} of {cores} cores of this machine", used * flops, bandwidth, bandwidth / 4)


def _fastest(action: Callable[[], object]) -> float:
    """Seconds of the fastest of many tries: the slower ones were disturbed, or had to warm up."""
    start = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < MIN_TRIES or time.perf_counter() < start + MEASURE_S:
        try_start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - try_start)
    return min(seconds)


def num_gpus() -> int:
    """The number of GPUs that CUDA's driver offers this process, without importing torch; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
