"""`r1zero doctor`: whether this machine can train, and what is wrong."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from grpo_cli.choices import Device
from grpo_cli.config.machine import installed_vllm
from grpo_cli.doctor.checks import findings
from grpo_cli.doctor.findings import Finding, Level
from grpo_cli.screen import Screen

DESCRIPTION = """\
Look at what a training run needs, and say what is wrong and how to mend it.

Packages and their versions, GPU, memory, disk, shared memory, sandbox, Slurm, Weights & Biases, the hub; then a
random model with a large vocabulary answers prompts with vLLM and takes a step with DeepSpeed. The exit status is 1
where a fault would keep every run from training; notes and warnings leave it 0.
"""
EXAMPLES = """\
examples:
  r1zero doctor
  r1zero doctor --quick                 without the engines and the network
  r1zero doctor --runs /scratch/runs    look at the disk where run.dir will be
  r1zero doctor --json > doctor.json
"""
STYLES = {Level.ok: "green", Level.note: "cyan", Level.warning: "yellow", Level.fault: "bold red"}


def main(argv: list[str]) -> None:
    """Print each finding as it is found; SystemExit with status 1 where one is a fault."""
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
    for finding in findings(arguments.runs, quick=arguments.quick):
        _print(console, finding)
        found.append(finding)
    num_faults = sum(finding.level is Level.fault for finding in found)
    if arguments.json:
        print(json.dumps({"num_faults": num_faults, "findings": [asdict(finding) for finding in found]}, indent=2))
    elif num_faults:
        console.print(f"\nThis machine cannot train yet: mend {num_faults} fault(s), and run `r1zero doctor` again.")
    elif arguments.quick:
        console.print("\nNo fault so far. The engines were not tried: `r1zero doctor` does.")
    else:
        cluster = " cluster=gpu_1" if installed_vllm()[1] == Device.cuda else ""
        console.print(f"\nThis machine can train. Begin with `r1zero train{cluster}`.")
    if num_faults:
        raise SystemExit(1)


def _print(console: Console, finding: Finding) -> None:
    level = f"[{STYLES[finding.level]}]{finding.level:<8}[/]"
    console.print(f"{level}{finding.about}: {escape(finding.seen)}", highlight=False, soft_wrap=True)
    if finding.mend:
        console.print(f"        {escape(finding.mend)}", highlight=False, soft_wrap=True)
