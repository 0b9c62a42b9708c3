"""Evaluation results for people: tables, plots and trackers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from grpo_cli.config.tasks import AnalyzeTask, EvalTask, SampleTask
from grpo_cli.evaluation.measures import macro_average
from grpo_cli.metrics.metrics import LoggedStep
from grpo_cli.metrics.trackers import open_trackers
from grpo_cli.ranks import rank
from grpo_cli.runs.frozen import public_settings
from grpo_cli.screen import Screen

Metrics = Mapping[str, float]


def report_console(terminal: TextIO) -> Console:
    """The console of rank 0, wide enough for a table if the output is not a terminal; silent on other ranks."""
    width = None if terminal.isatty() else 140
    return Screen(file=terminal, quiet=rank() != 0, width=width, markup=False, highlight=False, soft_wrap=True)


def metrics_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """A table of rows with the same keys, which are its headings. The first column holds names, the others numbers."""
    table = Table()
    for heading in rows[0]:
        table.add_column(heading, no_wrap=True, justify="right" if table.columns else "left")
    for row in rows:
        table.add_row(*row.values())
    return table


def pair(metrics: Metrics, one: str, other: str, spec: str) -> str:
    """Two metrics in one cell, with a dash for a missing one."""
    return " / ".join(format(metrics[key], spec) if key in metrics else "-" for key in (one, other))


def result_table(benchmarks: Mapping[str, Metrics]) -> Table:
    """One row per benchmark, and their macro average if there are several."""
    at_k = _largest_k(benchmarks)
    language = ["language"] if any("language" in metrics for metrics in benchmarks.values()) else []

    def shares(metrics: Metrics, keys: Sequence[str]) -> dict[str, str]:
        return {key: f"{metrics[key]:.1%}" if key in metrics else "" for key in keys}

    rows = [
        {
            "benchmark": name,
            "problems": f"{metrics['num_problems']:.0f} x {metrics['num_samples'] / metrics['num_problems']:g}",
            "avg ± s.e.": f"{metrics['avg']:.1%} ± {metrics['avg_se']:.1%}",
            "95 %": f"{metrics['avg_low']:.1%} to {metrics['avg_high']:.1%}",
            **shares(metrics, at_k),
            "length": f"{metrics['length']:.1f}",
            "right / wrong": pair(metrics, "length_correct", "length_wrong", ".1f"),
            "cut": f"{metrics['truncated']:.1%}",
            "well-formed": f"{metrics['well_formed']:.1%}",
            **shares(metrics, language),
        }
        for name, metrics in benchmarks.items()
    ]
    table = metrics_table(rows)
    if len(benchmarks) > 1:
        average = macro_average(list(benchmarks.values()))
        table.add_section()
        table.add_row("macro average", "", f"{average['avg']:.1%} ± {average['avg_se']:.1%}")
    return table


def _largest_k(benchmarks: Mapping[str, Metrics]) -> list[str]:
    """The names of pass@k and maj@k at the largest k of any benchmark."""
    keys = {key for metrics in benchmarks.values() for key in metrics}
    largest = [
        max((key for key in keys if key.startswith(kind)), key=lambda key: int(key.removeprefix(kind)), default="")
        for kind in ("pass@", "maj@")
    ]
    return [key for key in largest if key and key != "pass@1"]


def plot_curves(curves: Mapping[str, Sequence[float]], png: Path) -> None:
    """Plot pass@k against k, one curve per benchmark."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("k samples", fontsize=9)
    axes.set_ylabel("pass@k", fontsize=9)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(png, dpi=120)


def plot_bars(shares: Mapping[str, Mapping[str, float]], run_dir: Path) -> None:
    """Plot `analyze.png`: one panel per metric, one bar per template (after arXiv:2503.20783, figure 3)."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    figure = Figure(figsize=(9, 2.7), layout="constrained")
    for axes, (title, bars) in zip(figure.subplots(1, len(shares)), shares.items(), strict=True):
        drawn = axes.bar(list(bars), list(bars.values()), color="tab:blue", width=0.6)
        axes.bar_label(drawn, fmt="{:.0%}", fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(0, 1.1)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(run_dir / "analyze.png", dpi=120)


def log_to_trackers(
    job_type: str, metrics: Mapping[str, Metrics], config: EvalTask | AnalyzeTask | SampleTask, console: Console
) -> None:
    """Log `<job type>/<benchmark>/<metric>` to a new run in each tracker, with its files in `<run.dir>/<job type>`."""
    run_dir = Path(config.run.dir)
    row = {f"{job_type}/{name}/{key}": value for name, values in metrics.items() for key, value in values.items()}
    for tracker in open_trackers(
        config.logger,
        run_dir / job_type,
        run_name=run_dir.name,
        settings=public_settings(config),
        message=console.print,
        job_type=job_type,
    ):
        tracker.log(LoggedStep({"step": 0, **row}))
        tracker.close(failed=False, model=None)
