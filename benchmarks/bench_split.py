"""Ranks that only generate, next to ranks that do both: `python benchmarks/bench_split.py`.

Seconds per step of one rank, of two ranks that both do everything, and of one rank that generates for one that trains,
in turn or at the same time; and with partial rollouts, which do not wait for the longest responses. On two cores, every
rank has one thread except the single rank. Runs are made one after the other, because a rank that samples ahead does
not wait for the turns of other programs.
"""

import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from r1zero_loop import TWO_RANKS, Forced, _rank, composed, synthetic
from relay import on_ranks
from results import run_alone, scratch, table
from workload import WORKLOADS, Workload

SPLIT = ["cluster=cpu_split"]
PARTIAL = "rollout.oversample=8"  # half of the prompts of a step
LAYOUTS: dict[str, tuple[list[str], int]] = {
    "one rank": ([], 1),
    "one rank, partial": ([PARTIAL, "rollout.max_staleness=1"], 1),
    "two ranks": (TWO_RANKS, 2),
    "two ranks, partial": ([*TWO_RANKS, PARTIAL, "rollout.max_staleness=1"], 2),
    "split": (SPLIT, 2),
    "split, a step ahead": ([*SPLIT, "rollout.max_staleness=1"], 2),
    "split, a step ahead, partial": ([*SPLIT, PARTIAL, "rollout.max_staleness=2"], 2),
}
PHASES = ("step", "rollout", "update", "wait", "sync")


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """For each workload and layout, the means of `rounds` steps after two others.

    With partial rollouts, a step with much to generate and one with little may take turns, so a median would mislead.
    """
    return {
        name: {layout: _seconds(WORKLOADS[name], *how, rounds) for layout, how in LAYOUTS.items()}
        for name in ("equal", "varied")
    }


def report(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The figures as a table in Markdown."""
    rows = [
        [workload, layout, *(f"{seconds[phase]:.2f}" if phase in seconds else "" for phase in PHASES)]
        for workload, layouts in figures.items()
        for layout, seconds in layouts.items()
    ]
    return table(["lengths", "layout", *(f"{phase}, s" for phase in PHASES)], rows)


def _seconds(workload: Workload, cluster: list[str], ranks: int, rounds: int) -> dict[str, float]:
    overrides = [*synthetic(workload, scratch() / workload.name), *cluster, f"steps={rounds + 3}"]
    run_dir = Path(tempfile.mkdtemp(dir=scratch()))
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(ranks, overrides, run_dir, workload))
    process.start()
    process.join()
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][3:-1]
    assert len(rows) == rounds, "a rank has failed: its traceback is above"
    names = [phase for phase in PHASES if f"time/{phase}" in rows[0]]
    return {name: statistics.fmean(row[f"time/{name}"] for row in rows) for name in names}


def _run(ranks: int, overrides: list[str], run_dir: Path, workload: Workload) -> None:
    from grpo_cli.runs.folder import run_folder_lock

    with run_folder_lock(run_dir, composed(overrides, run_dir), lambda: None) as config_file:
        on_ranks(ranks, None, _rank, config_file, Forced(workload.lengths))


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
