"""What an evaluation found, for people: tables, pictures and a W&B run."""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics.loggers import WandbRun
from grpo_cli.ranks import rank
from grpo_cli.screen import Screen

Metrics = Mapping[str, float]


def macro_average(benchmarks: Sequence[Metrics]) -> dict[str, float]:
    """The mean of the benchmarks' averages, each of equal weight, and its standard error."""
    return {
        "avg": sum(metrics["avg"] for metrics in benchmarks) / len(benchmarks),
        "avg_se": sqrt(sum(metrics["avg_se"] ** 2 for metrics in benchmarks)) / len(benchmarks),
    }


def report_console(terminal: TextIO) -> Console:
    """Rank 0's console, wide enough for a table where the output is no terminal."""
    return Screen(file=terminal, quiet=rank() != 0, width=None if terminal.isatty() else 140)


def figures_table(*headings: str) -> Table:
    """A table of a name and figures."""
    table = Table(*headings)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column is table.columns[0] else "right"
    return table


def result_table(benchmarks: Mapping[str, Metrics]) -> Table:
    """A row a benchmark, and their macro average where there are several."""
    at_k = [name for name in _largest_k(benchmarks) if any(name in metrics for metrics in benchmarks.values())]
    language = ["language"] if any("language" in metrics for metrics in benchmarks.values()) else []
    table = figures_table(
        *("benchmark", "problems", "avg ± s.e.", "95 %", *at_k, "length", "right / wrong", "cut", "well-formed"),
        *language,
    )
    for name, metrics in benchmarks.items():
        table.add_row(
            name,
            f"{metrics['num_problems']:.0f} x {metrics['num_samples'] / metrics['num_problems']:g}",
            f"{metrics['avg']:.1%} ± {metrics['avg_se']:.1%}",
            f"{metrics['avg_low']:.1%} to {metrics['avg_high']:.1%}",
            *(f"{metrics[key]:.1%}" if key in metrics else "" for key in at_k),
            f"{metrics['length']:.1f}",
            " / ".join(f"{metrics[key]:.1f}" if key in metrics else "-" for key in ("length_correct", "length_wrong")),
            f"{metrics['truncated']:.1%}",
            f"{metrics['well_formed']:.1%}",
            *(f"{metrics[key]:.1%}" if key in metrics else "" for key in language),
        )
    if len(benchmarks) > 1:
        average = macro_average(list(benchmarks.values()))
        table.add_section()
        table.add_row("macro average", "", f"{average['avg']:.1%} ± {average['avg_se']:.1%}")
    return table


def _largest_k(benchmarks: Mapping[str, Metrics]) -> list[str]:
    """pass@k and maj@k, each at the largest k that a benchmark has."""
    keys = {key for metrics in benchmarks.values() for key in metrics}
    largest = [
        max((key for key in keys if key.startswith(kind)), key=lambda key: int(key.removeprefix(kind)), default="")
        for kind in ("pass@", "maj@")
    ]
    return [key for key in largest if key and key != "pass@1"]


def plot_curves(curves: Mapping[str, Sequence[float]], png: Path) -> None:
    """Draws pass@k against k, a curve a benchmark."""
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
    """Draws a panel a measure, with a bar a template, as `analyze.png` (after arXiv:2503.20783, figure 3)."""
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


def log_to_wandb(
    job_type: str,
    metrics: Mapping[str, Metrics],
    run_dir: Path,
    settings: Mapping[str, Any],
    config: LoggerConfig,
    console: Console,
) -> None:
    """Log `<job type>/<benchmark>/<metric>` to a W&B run of its own, whose files are in `<run_dir>/<job type>`."""
    if not config.wandb:
        return

    def message(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    folder = run_dir / job_type
    run = WandbRun(config, folder, run_name=run_dir.name, settings=settings, message=message, job_type=job_type)
    row = {f"{job_type}/{name}/{key}": value for name, some in metrics.items() for key, value in some.items()}
    run.log(0, row, [])
    run.close(failed=False)
