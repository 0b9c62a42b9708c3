"""`r1zero runs`: what became of past runs, and how to resume them."""

import argparse
import shutil
import sys
from pathlib import Path

from rich.table import Table

from grpo_cli.errors import ConfigError
from grpo_cli.jsonl import json_text
from grpo_cli.runs.listing import Run, State, list_runs, row_of
from grpo_cli.screen import Screen

DESCRIPTION = """\
List the runs in a folder, also those of sweeps and pipelines: state, steps, the main metric before and after, time
since the last step, and the command that resumes a run which did not finish. For `r1zero eval`, `after` is the average
over the benchmarks.

`r1zero runs prune` removes the folders of runs that never took a step.
"""
EXAMPLES = """\
examples:
  r1zero runs
  r1zero runs --folder runs/sweeps --json
  r1zero runs prune --dry-run
"""
UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def main(argv: list[str]) -> None:
    """Print the table of runs, or remove empty ones. Raises ConfigError if the folder is missing."""
    parser = argparse.ArgumentParser(
        prog="r1zero runs",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=["list", "prune"], default="list")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the runs are (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per run")
    parser.add_argument("--dry-run", action="store_true", help="with prune: only say what would be removed")
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise ConfigError(
            f"{options.folder}: there is no such folder. Start a run with `r1zero train`, or give the folder that "
            "holds your runs with --folder."
        )
    runs = list_runs(options.folder)
    if options.action == "prune":
        _prune(runs, dry_run=options.dry_run)
    elif options.json:
        for run in runs:
            print(json_text(row_of(run)))
    else:
        _print(runs, options.folder)


def _prune(runs: list[Run], *, dry_run: bool) -> None:
    empty = [run for run in runs if run.state is State.empty]
    for run in empty:
        if not dry_run:
            shutil.rmtree(run.folder)
        print(f"{'would remove' if dry_run else 'removed'} {run.folder}")
    if not empty:
        print("There is nothing to remove: every run has taken a step.")


def _print(runs: list[Run], folder: Path) -> None:
    if not runs:
        print(f"There are no runs in {folder}. Start one with `r1zero train`.")
        return
    table = Table("run", "command", "state", "step", "before", "after", "age")
    for run in runs:
        step = f"{run.step} / {run.steps}" if run.steps else str(run.step or "")
        table.add_row(
            str(run.folder), run.command, run.state.value, step, _value(run.before), _value(run.after), _age(run.age_s)
        )
    console = Screen(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    unfinished = [run.resume for run in runs if run.resume]
    if unfinished:
        console.print("To resume a run:", *(f"  {command}" for command in unfinished), sep="\n", soft_wrap=True)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _age(seconds: float) -> str:
    """
    >>> _age(7300), _age(59)
    ('2 h', '59 s')
    """
    for unit, size in UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
