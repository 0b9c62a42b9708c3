"""How long r1zero takes to answer and to start training: `python benchmarks/bench_start.py`.

The quickstart is timed from the command to the end of its first optimizer step. The evaluation before training has no
time in the metrics, so it uses one problem here instead of 256, and its time (mostly the first use of vLLM) is counted.
The row of the first step is written after the weights are synced and the held-out problem is evaluated again; the time
of that second evaluation, the row's `time/eval`, is subtracted.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from results import run_alone, table

R1ZERO = Path(sys.executable).parent / "r1zero"
WANTED_S = {"--help": 0.3, "plan": 2.0, "train": 25.0}
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}


def call(*arguments: str) -> float:
    """The seconds that `r1zero` with these arguments takes."""
    started = time.perf_counter()
    subprocess.run([R1ZERO, *arguments], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def train_to_first_step() -> float:
    """The seconds until the row of the first step is written, without its `time/eval`."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        started = time.time()
        call("train", "steps=1", "data.num_heldout=1", "logger=none", f"run.dir={run_dir}")
        file = run_dir / "metrics.jsonl"
        first_step = json.loads(file.read_text().splitlines()[-1])
        return file.stat().st_mtime - started - first_step["time/eval"]


def measure(rounds: int) -> dict[str, list[float]]:
    """The seconds of each round, by command."""
    commands = {"--help": lambda: call("--help"), "plan": lambda: call("plan"), "train": train_to_first_step}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(command())
    return seconds


def report(figures: dict[str, list[float]]) -> str:
    """The figures as a table in Markdown."""
    rows = [
        [f"`r1zero {name}`", f"{median(s):.2f}", f"{min(s):.2f}", f"{max(s):.2f}", f"{WANTED_S[name]}"]
        for name, s in figures.items()
    ]
    return table(["seconds of", "median", "min", "max", "goal"], rows)


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
