"""What the machine provides: GPUs, memory, disk, shared memory, a sandbox, Slurm."""

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from grpo_cli import limits
from grpo_cli.doctor.engines import ProbeError, run_probe
from grpo_cli.doctor.findings import Finding, fault, note, ok, warning
from grpo_cli.errors import SetupError

GIB = 2**30
MIN_MEMORY_GIB = 4
MIN_DISK_GIB, ROOMY_DISK_GIB = 1, 20
MIN_SHM_GIB = 1
MIN_DRIVER = 580  # for CUDA 13.0, which PyPI's torch 2.13 is built with
MIN_CAPABILITY = (8, 0)  # Ampere, the first with bf16
ANSWER_S = 10.0  # time limit for a command such as nvidia-smi
IMPORT_S = 120.0  # time limit to import torch, which takes long from a slow disk
SHM = Path("/dev/shm")
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_gpu() -> Finding:
    """The GPUs that torch can use, compared with those that the driver reports."""
    by_driver = _nvidia_smi("name")
    try:
        torch = json.loads(run_probe("torch", IMPORT_S))
    except ProbeError as error:
        return fault(f"torch cannot be imported: {error}", "Install torch again.")
    gpus, cuda = torch["gpus"], torch["cuda"]
    seen = ", ".join(f"{gpu['name']} with {gpu['free'] / GIB:.0f} of {gpu['total'] / GIB:.0f} GiB free" for gpu in gpus)
    if any(gpu["free"] < gpu["total"] / 2 for gpu in gpus):
        fix = "Find it with `nvidia-smi` and end it, or choose other GPUs with CUDA_VISIBLE_DEVICES."
        return warning(f"{seen}: another process uses more than half of a GPU's memory", fix)
    if gpus:
        return ok(f"{seen}; CUDA {cuda}")
    if not by_driver:
        return note("no GPU, so runs use the CPU", "Use small models, and cluster=cpu or cluster=cpu_2rank.")
    fix = f"Update the driver to one for CUDA {cuda}, and check CUDA_VISIBLE_DEVICES."
    if cuda is None:
        fix = "Replace torch and vllm with their CUDA builds: `make setup STACK=cuda` in a checkout."
    return warning(f"the driver reports {', '.join(by_driver)}, but torch cannot use it", fix)


def check_cuda_stack() -> list[Finding]:
    """Checks what GPU kernels need, such as Python.h, because Triton compiles a C module. Empty without a GPU."""
    driver, *_ = _nvidia_smi("driver_version") or [""]
    if not driver:
        return []
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_path("include"), "Python.h")
    capabilities = _nvidia_smi("compute_cap")
    oldest = min((tuple(map(int, each.split("."))) for each in capabilities), default=MIN_CAPABILITY)
    findings = []
    if not compiler:
        findings.append(warning("GPU kernels need a C compiler", "Install one (`apt-get install gcc`), or set CC."))
    if not header.is_file():
        package = f"python{sysconfig.get_python_version()}-dev"
        findings.append(warning(f"GPU kernels need {header}", f"Install it (`apt-get install {package}`)."))
    if int(driver.split(".")[0]) < MIN_DRIVER:
        seen = f"driver {driver} is too old for CUDA 13.0"
        findings.append(warning(seen, f"Update it to {MIN_DRIVER} or newer."))
    if oldest < MIN_CAPABILITY:
        seen = f"a GPU has compute capability {'.'.join(map(str, oldest))}, but bf16 needs 8.0"
        findings.append(warning(seen, "Choose other GPUs with CUDA_VISIBLE_DEVICES."))
    seen = f"{compiler}, Python.h, driver {driver}, compute capability {', '.join(dict.fromkeys(capabilities))}"
    return findings or [ok(seen)]


def check_memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    total = min([memory.total, *(int(text) for file in CGROUP_LIMITS if (text := _read(file)).isdigit())])
    free = min(memory.available, total)
    seen = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    if free < MIN_MEMORY_GIB * GIB:
        return fault(seen, f"The smallest run needs {MIN_MEMORY_GIB} GiB: end other programs, or use a larger machine.")
    return ok(seen)


def check_disk(runs: Path) -> Finding:
    """Checks the free space for runs; their folder need not exist yet."""
    folder = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return fault(f"{folder} is not writable", "Start from another folder, or set run.dir=<folder>.")
    free = shutil.disk_usage(folder).free
    seen = f"{free / GIB:.1f} GiB are free in {folder}, where runs are written"
    if free < MIN_DISK_GIB * GIB:
        return fault(seen, "Delete old runs, or set run.dir to a folder on another disk.")
    if free < ROOMY_DISK_GIB * GIB:
        fix = "Set run.dir to a folder on a larger disk, or keep fewer checkpoints with checkpoint.keep_last=1."
        return warning(f"{seen}; a checkpoint takes up to 16 bytes per parameter", fix)
    return ok(seen)


def check_shared_memory() -> Finding:
    """Checks /dev/shm, which GPUs use to exchange gradients and grading processes use for locks."""
    try:
        limits.check_shared_memory()
    except SetupError:
        return fault(f"{SHM} is not writable", "Mount a tmpfs there, for example with `docker run --tmpfs /dev/shm`.")
    total = shutil.disk_usage(SHM).total
    seen = f"{SHM} has {total / GIB:.2f} GiB"
    if total < MIN_SHM_GIB * GIB:
        fix = "Start the container with --shm-size=8g or --ipc=host."
        return warning(f"{seen}, too little for several ranks on GPUs", fix)
    return ok(seen)


def check_sandbox() -> Finding:
    """Starts a real sandbox, like the reward for code does."""
    from grpo_cli.choices import Sandbox
    from grpo_cli.sandbox import check_sandbox as start_sandbox

    try:
        start_sandbox(Sandbox.bwrap)
    except SetupError as error:
        seen, _, fix = str(error).removeprefix("sandbox=bwrap: ").partition(". ")
        return warning(seen, f"{fix} Only rewards and benchmarks that run code need it.")
    return ok("bubblewrap can run code in a sandbox")


def check_slurm() -> Finding:
    missing = [tool for tool in ("sbatch", "srun", "squeue", "scancel") if shutil.which(tool) is None]
    if missing:
        seen = f"{', '.join(missing)} not found, so cluster=slurm_... cannot be used"
        return note(seen, "Start such runs from a machine that submits to Slurm.")
    partitions = _output("sinfo", "--noheader", "--format=%P").split()
    if not partitions:
        seen = "`sinfo` reports no partition, so cluster=slurm_... cannot be used"
        return note(seen, "To use it, run `sinfo`, and ask the administrator of the cluster.")
    return ok(f"partitions: {' '.join(partitions)}")


def _nvidia_smi(field: str) -> list[str]:
    """The value for each GPU; empty without a driver."""
    return _output("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader").splitlines()


def _output(*command: str) -> str:
    """The output of a command; empty if it is missing, fails or does not end in time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
