"""`r1zero doctor`: whether this machine can train, and what is wrong if not."""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from grpo_cli.choices import Device
from grpo_cli.config.machine import installed_vllm
from grpo_cli.doctor import engines, machine, packages, services
from grpo_cli.doctor.findings import Finding, Level, fault
from grpo_cli.progress import progress
from grpo_cli.screen import Screen

DESCRIPTION = """\
Check what a training run needs, and say what is wrong and how to fix it.

Packages and their versions, GPU, memory, disk, shared memory, sandbox, Slurm, Weights & Biases, the Hugging Face Hub;
then a random model with a large vocabulary answers prompts with vLLM and takes a step with DeepSpeed. The exit status
is 1 if a fault would stop every run from training; with notes and warnings alone it is 0.
"""
EXAMPLES = """\
examples:
  r1zero doctor
  r1zero doctor --quick                 without the engines and the network
  r1zero doctor --runs /scratch/runs    check the disk that run.dir will be on
  r1zero doctor --json > doctor.json
"""
STYLES = {Level.ok: "green", Level.note: "cyan", Level.warning: "yellow", Level.fault: "bold red"}


def main(argv: list[str]) -> None:
    """Print each finding as soon as it is known; SystemExit with status 1 if one is a fault."""
    parser = argparse.ArgumentParser(
        prog="r1zero doctor",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="leave out the engines and the network")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are written (default: %(default)s)")
    arguments = parser.parse_args(argv)
    console = Screen(quiet=arguments.json)
    found = []
    for finding in findings(arguments.runs, quick=arguments.quick, console=console):
        _print(console, finding)
        found.append(finding)
    num_faults = sum(finding.level is Level.fault for finding in found)
    if arguments.json:
        print(json.dumps({"num_faults": num_faults, "findings": [asdict(finding) for finding in found]}, indent=2))
    elif num_faults:
        console.print(f"\nThis machine cannot train yet. Fix {num_faults} fault(s), and run `r1zero doctor` again.")
    elif arguments.quick:
        console.print("\nNo fault so far. The engines were not tried; `r1zero doctor` tries them.")
    else:
        cluster = " cluster=gpu_1" if installed_vllm()[1] == Device.cuda else ""
        console.print(f"\nThis machine can train. Start with `r1zero train{cluster}`.")
    if num_faults:
        raise SystemExit(1)


def findings(runs: Path, *, quick: bool, console: Console) -> Iterator[Finding]:
    """The findings, each as soon as it is known; `quick` leaves out the engines and the network.

    `console` shows what is being checked.
    """
    checks: dict[str, Callable[[], Finding | list[Finding]]] = {
        "packages": packages.check_packages,
        "GPU": machine.check_gpu,
        "CUDA stack": machine.check_cuda_stack,
        "memory": machine.check_memory,
        "disk": partial(machine.check_disk, runs),
        "shared memory": machine.check_shared_memory,
        "sandbox": machine.check_sandbox,
        "Slurm": machine.check_slurm,
        "W&B": partial(services.check_wandb, connect=not quick),
        "Hugging Face Hub": partial(services.check_hub, connect=not quick),
    }
    if not quick:
        checks |= {engine: partial(engines.check_engine, engine) for engine in ("vLLM", "DeepSpeed")}
    for name, check in checks.items():
        try:
            with progress(console, f"checking {name}"):
                found = check()
        except Exception as error:  # such as a missing package: it must not hide other faults
            fix = "If a package is missing, install it; otherwise please report it."
            found = fault(f"cannot be checked: {type(error).__name__}: {error}", fix)
        for finding in found if isinstance(found, list) else [found]:
            yield replace(finding, about=finding.about or name)


def _print(console: Console, finding: Finding) -> None:
    level = f"[{STYLES[finding.level]}]{finding.level:<8}[/]"
    console.print(f"{level}{finding.about}: {escape(finding.seen)}", highlight=False, soft_wrap=True)
    if finding.fix:
        console.print(f"        {escape(finding.fix)}", highlight=False, soft_wrap=True)
