"""Runs the benchmarks of `make bench` and writes results/<date>.json and .md: `python benchmarks/run.py`.

A benchmark that is measured again on the same day replaces its earlier figures. If one fails, this is written to the
results, and the others still run.
"""

import argparse
import json
import os
import sys
import time
import traceback
from datetime import date
from types import ModuleType

import bench_floor
import bench_scaling
import bench_start
import bench_step
import bench_trl
from results import RESULTS, machine

BENCHMARKS = {
    "step": ("Where a step's time goes", bench_step),
    "floor": ("Compared with the fewest calls for the same work", bench_floor),
    "trl": ("Compared with TRL", bench_trl),
    "start": ("Start", bench_start),
    "scaling": ("How a step grows", bench_scaling),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds per comparison; figures are medians over them")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    failed = []
    for name in options.only:
        title, benchmark = BENCHMARKS[name]
        load, started = os.getloadavg()[0], time.perf_counter()
        try:
            measured = {"figures": benchmark.measure(options.rounds)}
        except Exception as error:  # of any type: the others still run
            traceback.print_exc()
            measured = {"failed": f"{type(error).__name__}: {error}".strip().splitlines()[-1]}
            failed.append(name)
        print(f"{title} ({time.perf_counter() - started:.0f} s)\n\n{_result(benchmark, measured)}\n", flush=True)
        _write(name, {"rounds": options.rounds, "load": load} | measured)  # after each one, because all take long
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _result(benchmark: ModuleType, measured: dict) -> str:
    return f"It failed: {measured['failed']}" if "failed" in measured else benchmark.report(measured["figures"])


def _write(name: str, measured: dict) -> None:
    """Add to today's files, if they are from this machine; otherwise replace them."""
    file = RESULTS / f"{date.today()}.json"
    written = json.loads(file.read_text()) if file.exists() else {}
    if written.get("machine") != machine():
        written = {"machine": machine(), "benchmarks": {}}
    written["benchmarks"][name] = measured
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(written, indent=1) + "\n")
    file.with_suffix(".md").write_text(_markdown(f"{date.today()}", **json.loads(file.read_text())))


def _markdown(day: str, machine: dict, benchmarks: dict) -> str:
    """All results of a day in Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [f"# {day}", f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {packages}."]
    for name, (title, benchmark) in BENCHMARKS.items():
        if measured := benchmarks.get(name):
            command = f"python benchmarks/run.py --only {name} --rounds {measured['rounds']}"
            lines += [
                f"## {title}",
                f"`{command}`: medians. The load average before the start was {measured['load']:.1f}.",
                _result(benchmark, measured),
            ]
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
