"""What the machine offers: GPUs, memory, disk, shared memory, a sandbox, Slurm."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from grpo_cli import limits
from grpo_cli.doctor.findings import Finding, Level
from grpo_cli.doctor.process import ProbeError, run_probe
from grpo_cli.errors import SetupError

GIB = 2**30
MIN_MEMORY_GIB = 4
MIN_DISK_GIB = 1
ROOMY_DISK_GIB = 20
MIN_SHM_GIB = 1
MIN_DRIVER = 580  # of CUDA 13.0, for which PyPI's torch 2.13 is built
MIN_CAPABILITY = (8, 0)  # the first with bf16: Ampere
ANSWER_S = 10.0  # for a tool of the machine to answer
IMPORT_S = 120.0  # for torch to be imported, on a disk that is slow
SHM = Path("/dev/shm")
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_gpu() -> Finding:
    """The GPUs that torch can use, against those that the driver knows."""
    by_driver = _ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    try:
        torch = json.loads(run_probe("torch", IMPORT_S))
    except ProbeError as error:
        return Finding("GPU", Level.fault, f"torch cannot be imported: {error}", "Install torch anew.")
    if torch["gpus"]:
        memory = ", ".join(
            f"{gpu['name']} with {gpu['free'] / GIB:.0f} of {gpu['total'] / GIB:.0f} GiB free" for gpu in torch["gpus"]
        )
        if any(gpu["free"] < gpu["total"] / 2 for gpu in torch["gpus"]):
            return Finding(
                "GPU",
                Level.warning,
                f"{memory}: another process holds most of one",
                "See which with `nvidia-smi`, and end it, or choose other GPUs with CUDA_VISIBLE_DEVICES.",
            )
        return Finding("GPU", Level.ok, f"{memory}; CUDA {torch['cuda']}")
    if not by_driver:
        return Finding(
            "GPU",
            Level.note,
            "there is none, so runs stay on the CPU",
            "Use small models, and cluster=cpu or cpu_2rank.",
        )
    mend = (
        "Install torch and vllm for CUDA in place of the builds for CPUs: `make setup STACK=cuda` in a checkout."
        if torch["cuda"] is None
        else f"Update the driver to one for CUDA {torch['cuda']}, and look at CUDA_VISIBLE_DEVICES."
    )
    return Finding("GPU", Level.warning, f"the driver knows {', '.join(by_driver)}, and torch can use none", mend)


def check_cuda_stack() -> Iterator[Finding]:
    """What kernels need where there is a GPU; Triton compiles a C module against Python.h when its first one starts."""
    driver, *_ = _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines() or [""]
    if not driver:
        return
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_path("include"), "Python.h")
    capabilities = _ask("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").splitlines()
    weakest = min((tuple(map(int, each.split("."))) for each in capabilities), default=MIN_CAPABILITY)
    rules = [
        (compiler, "there is no C compiler, which GPU kernels need", "Install one (`apt-get install gcc`), or set CC."),
        (
            header.is_file(),
            f"there is no {header}, which GPU kernels need",
            f"Install Python's headers (`apt-get install python{sysconfig.get_python_version()}-dev`).",
        ),
        (
            int(driver.split(".")[0]) >= MIN_DRIVER,
            f"driver {driver} is too old for CUDA 13.0",
            f"Update it to {MIN_DRIVER} or newer.",
        ),
        (
            weakest >= MIN_CAPABILITY,
            f"a GPU has compute capability {'.'.join(map(str, weakest))}, and bf16 needs 8.0",
            "Choose other GPUs with CUDA_VISIBLE_DEVICES.",
        ),
    ]
    faults = [Finding("CUDA stack", Level.warning, seen, mend) for is_met, seen, mend in rules if not is_met]
    seen = f"{compiler}, Python.h, driver {driver}, compute capability {', '.join(dict.fromkeys(capabilities))}"
    yield from faults or [Finding("CUDA stack", Level.ok, seen)]


def check_memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    allowed = [int(text) for file in CGROUP_LIMITS if (text := _read(file)).isdigit()]
    total = min(memory.total, *allowed) if allowed else memory.total
    free = min(memory.available, total)
    seen = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    if free < MIN_MEMORY_GIB * GIB:
        mend = f"The smallest run needs {MIN_MEMORY_GIB} GiB: end other programs, or take a larger machine."
        return Finding("memory", Level.fault, seen, mend)
    return Finding("memory", Level.ok, seen)


def check_disk(runs: Path) -> Finding:
    """The room where runs are written, in a folder that may not be there yet."""
    there = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "disk", Level.fault, f"{there} cannot be written to", "Start from another folder, or set run.dir=<folder>."
        )
    free = shutil.disk_usage(there).free
    seen = f"{free / GIB:.1f} GiB are free in {there}, where runs are written"
    if free < MIN_DISK_GIB * GIB:
        return Finding("disk", Level.fault, seen, "Delete old runs, or set run.dir to a folder on another disk.")
    if free < ROOMY_DISK_GIB * GIB:
        return Finding(
            "disk",
            Level.warning,
            f"{seen}; a checkpoint takes up to 16 bytes a parameter",
            "Set run.dir to a folder on a larger disk, or keep fewer checkpoints with checkpoint.keep_last=1.",
        )
    return Finding("disk", Level.ok, seen)


def check_shared_memory() -> Finding:
    """Through it, GPUs of one machine exchange gradients, and the processes that verify answers take turns."""
    try:
        limits.check_shared_memory()
    except SetupError:
        seen, fix = f"{SHM} cannot be written to", "Mount a tmpfs there, as with --tmpfs /dev/shm of docker run."
        return Finding("shared memory", Level.fault, seen, fix)
    total = shutil.disk_usage(SHM).total
    seen = f"{SHM} has {total / GIB:.2f} GiB"
    if total < MIN_SHM_GIB * GIB:
        return Finding(
            "shared memory",
            Level.warning,
            f"{seen}, too little for several ranks on GPUs",
            "Start the container with --shm-size=8g or --ipc=host.",
        )
    return Finding("shared memory", Level.ok, seen)


def check_sandbox() -> Finding:
    """Start a real box, as a reward for code does."""
    from grpo_cli.choices import Sandbox
    from grpo_cli.errors import SetupError
    from grpo_cli.sandbox import check_sandbox as start_box

    try:
        start_box(Sandbox.bwrap)
    except SetupError as error:
        seen, _, mend = str(error).removeprefix("sandbox=bwrap: ").partition(". ")
        return Finding("sandbox", Level.warning, seen, f"{mend} Only rewards and benchmarks of code need it.")
    return Finding("sandbox", Level.ok, "bubblewrap runs code in a box")


def check_slurm() -> Finding:
    missing = [tool for tool in ("sbatch", "srun", "squeue", "scancel") if shutil.which(tool) is None]
    if missing:
        return Finding(
            "Slurm",
            Level.note,
            f"there is no {', '.join(missing)}, so cluster=slurm_... cannot be used",
            "Start such runs from a machine that submits to Slurm.",
        )
    partitions = " ".join(_ask("sinfo", "--noheader", "--format=%P").split())
    if not partitions:
        return Finding(
            "Slurm",
            Level.warning,
            "`sinfo` does not tell of any partition, so cluster=slurm_... cannot be used",
            "See what `sinfo` says, and ask whoever runs the cluster.",
        )
    return Finding("Slurm", Level.ok, f"partitions: {partitions}")


def _ask(*command: str) -> str:
    """What a tool prints; nothing where it is missing, fails or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
