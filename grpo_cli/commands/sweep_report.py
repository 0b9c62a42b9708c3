"""`r1zero sweep-report`: the leaderboard and the plots of a sweep, from the folders of its jobs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from grpo_cli.analysis.sweep import SweepJob, effects, rank_settings, read_sweep, short_names, swept_keys, write_csv
from grpo_cli.errors import SetupError
from grpo_cli.report.sweep import sweep_page
from grpo_cli.screen import Screen

DESCRIPTION = """\
The leaderboard of a sweep, sorted by held-out accuracy: a table here, sweep.csv and sweep.html in the sweep's folder.

A sweep writes it at its end. Use this command while a sweep is running, or after you repeated some of its jobs.
"""
EXAMPLES = """\
examples:
  r1zero sweep-report runs/sweeps/2026-11-20_101500_train
  r1zero sweep-report runs/sweeps/*_smoke
  r1zero train -m algorithm.epsilon=0.1,0.2 hydra.sweep.dir=runs/sweeps/eps; r1zero sweep-report runs/sweeps/eps
"""


def main(argv: list[str]) -> None:
    """Print the leaderboard of each sweep and write its sweep.csv and sweep.html.

    Raises DataError if a folder contains no sweep, SetupError if it is not writable.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero sweep-report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="the folder of a sweep")
    for folder in parser.parse_args(argv).sweeps:
        report(folder)


def report_at_end(folder: Path) -> int:
    """Report a sweep at its end. Returns the number of jobs that did not finish."""
    if not any(folder.glob("*/job.json")):
        return 0  # the sweep ended before its first job
    jobs = report(folder)
    num_unfinished = sum(job.status != "finished" for job in jobs)
    if num_unfinished:
        print(
            f"{num_unfinished} of the {len(jobs)} jobs that were started did not finish. If one failed, its error.txt "
            f"or logs/ says why. To run only what is missing, add hydra.sweep.dir={folder} to the same command."
        )
    return num_unfinished


def report(folder: Path) -> list[SweepJob]:
    """Print the leaderboard and write it next to the jobs; returns the jobs."""
    jobs = read_sweep(folder)
    console = Screen(width=None if sys.stdout.isatty() else 140)
    console.print(leaderboard(jobs))
    if effects(jobs):
        console.print(effect_table(jobs))
    for job in jobs:
        if job.error:
            console.print(f"{job.folder.name} failed: {job.error}", markup=False, highlight=False, soft_wrap=True)
    try:
        write_csv(jobs, folder / "sweep.csv")
        (folder / "sweep.html").write_text(sweep_page(folder.resolve().name, jobs), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{folder} is not writable: {error.strerror}. Fix its permissions.") from error
    console.print(f"The sweep is in {folder}: sweep.html, sweep.csv", markup=False, highlight=False, soft_wrap=True)
    return jobs


def leaderboard(jobs: Sequence[SweepJob]) -> Table:
    """One row per setting, the best first; with several seeds, their mean and sample standard deviation."""
    keys = swept_keys(jobs)
    names = short_names(keys)
    has_seeds = any("seed" in job.swept for job in jobs)
    table = Table(*(escape(names[key]) for key in keys), "held-out")
    for name in [*(["seeds"] if has_seeds else []), "greedy", "tokens", "seconds"]:
        table.add_column(name, justify="right")
    table.add_column("job" if not has_seeds else "jobs", overflow="fold")
    for setting in rank_settings(jobs):
        spread = f" ± {setting.spread:.3f}" if setting.spread is not None else ""
        states = {job.status for job in setting.jobs} - {"finished"}
        table.add_row(
            *(escape(setting.swept.get(key, "")) for key in keys),
            f"{_figure(setting.mean, '.3f')}{spread}" if setting.finished else ", ".join(sorted(states)),
            *([f"{len(setting.finished)} of {len(setting.jobs)}"] if has_seeds else []),
            _figure(setting.greedy, ".3f"),
            _figure(setting.tokens, ",.0f"),
            _figure(setting.seconds, ",.0f"),
            " ".join(job.folder.name.partition("_")[0] for job in setting.jobs),
        )
    return table


def effect_table(jobs: Sequence[SweepJob]) -> Table:
    """The mean held-out accuracy for each value of each swept parameter, over all values of the others."""
    names = short_names(swept_keys(jobs))
    table = Table("parameter", "value", "mean held-out", "jobs")
    for effect in effects(jobs):
        table.add_row(escape(names[effect.key]), escape(effect.value), f"{effect.mean:.3f}", str(effect.num_jobs))
    return table


def _figure(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
