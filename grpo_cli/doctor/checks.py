"""All that doctor looks at, in the order in which one thing needs another."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from grpo_cli.doctor.findings import Finding, Level
from grpo_cli.doctor.machine import (
    check_cuda_stack,
    check_disk,
    check_gpu,
    check_memory,
    check_sandbox,
    check_shared_memory,
    check_slurm,
)
from grpo_cli.doctor.packages import check_packages
from grpo_cli.doctor.process import PROBE, ProbeError, run_probe
from grpo_cli.doctor.services import check_hub, check_wandb

ENGINE_S = 240.0  # for an engine's import and its few seconds of work, on a machine that is busy


def findings(runs: Path, *, quick: bool) -> Iterator[Finding]:
    """One after the other, as each is found; `quick` leaves out the engines and the network."""
    checks: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
        "packages": check_packages,
        "GPU": check_gpu,
        "CUDA stack": check_cuda_stack,
        "memory": check_memory,
        "disk": partial(check_disk, runs),
        "shared memory": check_shared_memory,
        "sandbox": check_sandbox,
        "Slurm": check_slurm,
        "W&B": partial(check_wandb, ask=not quick),
        "hub": partial(check_hub, ask=not quick),
    }
    if not quick:
        checks |= {"vLLM": partial(check_engine, "vLLM"), "DeepSpeed": partial(check_engine, "DeepSpeed")}
    for about, check in checks.items():
        try:
            found = check()
            yield from [found] if isinstance(found, Finding) else list(found)
        except Exception as error:  # such as a package that is not there: it must not hide what else is wrong
            mend = "If a package is missing, install it; else tell us of it."
            yield Finding(about, Level.fault, f"cannot be looked at: {type(error).__name__}: {error}", mend)


def check_engine(engine: str, limit_s: float = ENGINE_S) -> Finding:
    """Let a random model answer prompts, or take a step, with the very classes that a run uses."""
    probe = engine.lower()
    try:
        return Finding(engine, Level.ok, run_probe(probe, limit_s))
    except ProbeError as error:
        return Finding(engine, Level.fault, f"does not work: {error}", f"See all of it: {' '.join(PROBE)} {probe}")
