"""Comparison of two evaluations, problem by problem."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Table

from grpo_cli.errors import DataError
from grpo_cli.evaluation.samples import read_samples, right_by_problem
from grpo_cli.evaluation.spread import PairedDifference, paired_bootstrap


@dataclass(frozen=True, slots=True)
class Comparison:
    """One benchmark, on the problems that both runs have; other problems are only counted."""

    benchmark: str
    num_shared: int
    num_only_a: int
    num_only_b: int
    mean_a: float
    mean_b: float
    difference: PairedDifference  # b - a


def compare(a: Path, b: Path) -> list[Comparison]:
    """A comparison for each benchmark of which `<run>/eval/` has problems in both runs.

    Raises DataError if a run has no samples, or if the two have no problem in common.
    """
    files_a, files_b = _sample_files(a), _sample_files(b)
    comparisons = []
    for benchmark in [name for name in files_a if name in files_b]:
        rates_a, rates_b = _solve_rates(files_a[benchmark]), _solve_rates(files_b[benchmark])
        shared = [id for id in rates_a if id in rates_b]
        if not shared:
            continue
        a_P, b_P = [rates_a[id] for id in shared], [rates_b[id] for id in shared]
        only_a, only_b = len(rates_a) - len(shared), len(rates_b) - len(shared)
        difference = paired_bootstrap(a_P, b_P)
        comparisons.append(Comparison(benchmark, len(shared), only_a, only_b, fmean(a_P), fmean(b_P), difference))
    if not comparisons:
        raise DataError(
            f"{a} and {b} have no problem in common: one has {', '.join(files_a)}, the other {', '.join(files_b)}. "
            "Evaluate both on the same benchmark, as in benchmark=math500."
        )
    return comparisons


def comparison_table(comparisons: Sequence[Comparison], a: Path, b: Path) -> Table:
    """One row per benchmark: both means, b - a in percentage points with its 95 % interval, and the p-value."""
    name_a, name_b = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    table = Table("benchmark", "problems", "only one has", escape(name_a), escape(name_b), "difference", "95 %", "p")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in comparisons:
        difference = row.difference
        table.add_row(
            row.benchmark,
            str(row.num_shared),
            f"{row.num_only_a} + {row.num_only_b}",
            f"{row.mean_a:.1%}",
            f"{row.mean_b:.1%}",
            f"{difference.mean * 100:+.1f}",
            f"{difference.low * 100:+.1f} to {difference.high * 100:+.1f}",
            f"{difference.p_value:.4f}",
        )
    return table


def _sample_files(run_dir: Path) -> dict[str, Path]:
    files = sorted((run_dir / "eval").glob("*.jsonl"))
    if not files:
        raise DataError(
            f"{run_dir} has no eval/*.jsonl. Give the run folder of a finished `r1zero eval`. To finish an interrupted "
            f"one, run `r1zero eval run.dir={run_dir}` with its other settings."
        )
    return {file.stem: file for file in files}


def _solve_rates(file: Path) -> dict[str, float]:
    return {id: c / n for id, (n, c) in right_by_problem(read_samples(file)).items()}
