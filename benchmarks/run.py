"""Everything that `make bench` measures, written to results/<date>.json and .md: `python benchmarks/run.py`."""

import argparse
import json
import os
import time
from datetime import date

import bench_floor
import bench_scaling
import bench_start
import bench_step
import bench_trl
from results import RESULTS, machine

BENCHMARKS = {
    "step": ("Where a step's time goes", bench_step),
    "floor": ("Beside the fewest calls for the same work", bench_floor),
    "trl": ("Beside TRL", bench_trl),
    "start": ("Start", bench_start),
    "scaling": ("How a step grows", bench_scaling),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison; figures are their medians")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    command = f"python benchmarks/run.py --rounds {options.rounds} --only {' '.join(options.only)}"
    written = {"date": f"{date.today()}", "command": command, "machine": machine(), "figures": {}, "load": {}}
    lines = [f"# {written['date']}", f"`{command}` on {_in_words(written['machine'])}. Medians; load is that before."]
    for name in options.only:
        title, benchmark = BENCHMARKS[name]
        load, started = os.getloadavg()[0], time.perf_counter()
        figures = benchmark.measure(options.rounds)
        print(f"{title} ({time.perf_counter() - started:.0f} s)\n\n{benchmark.report(figures)}\n", flush=True)
        written["figures"][name], written["load"][name] = figures, load
        lines += [f"## {title}", f"Load {load:.1f}.", benchmark.report(figures)]
        RESULTS.mkdir(exist_ok=True)  # after each: the whole takes long
        (RESULTS / f"{written['date']}.json").write_text(json.dumps(written, indent=1) + "\n")
        (RESULTS / f"{written['date']}.md").write_text("\n\n".join(lines) + "\n")


def _in_words(found: dict) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return f"{found['cores']} cores of {found['cpu']}, Python {found['python']}, {packages}"


if __name__ == "__main__":
    main()
