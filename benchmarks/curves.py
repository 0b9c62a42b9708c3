"""Trains the arms of a comparison with a built-in model, prints their table, and draws them.

    python benchmarks/curves.py length_control --seeds 0 1 2
    python benchmarks/curves.py curriculum --seeds 0 1 --only off skip

Runs go to runs/<comparison>/<arm>_<seed>. A finished run is not repeated, and an unfinished one starts again. The
figure, docs/<comparison>.png, is drawn only if no arm of it is left out.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from results import table

from grpo_cli.analysis.report import read_metrics
from grpo_cli.data import make_zero_sizes

REPO = Path(__file__).parents[1]
OBJECTIVES = REPO / "examples/objectives"

Row = Mapping[str, Any]  # one of metrics.jsonl


@dataclass(frozen=True)
class Comparison:
    """Arms that share `settings`."""

    prepare: Callable[[Path], None]  # writes the files that the arms need into the comparison's folder
    settings: str
    arms: Mapping[str, str]
    drawn: Mapping[str, str]  # the arms of the figure, and their labels
    panels: Sequence[tuple[str, Callable[[Row], float | None]]]
    x: tuple[str, str]  # a metric, and its label
    columns: Mapping[str, Callable[[Sequence[Row]], str]]  # of the table, from the rows of one run


def copy_objectives(folder: Path) -> None:
    """The example objectives with the constants of the arms."""
    for name, example, old, new in (
        ("kimi_1", "kimi_length", "WEIGHT = 0.2\n", "WEIGHT = 1.0\n"),
        ("gfpo_4", "gfpo", "KEEP = 8\n", "KEEP = 4\n"),
    ):
        text = (OBJECTIVES / f"{example}.py").read_text()
        assert text.count(old) == 1, f"{example}.py has no line {old}"
        (folder / f"{name}.py").write_text(text.replace(old, new))


def write_mixed_problems(folder: Path) -> None:
    """384 problems of make_zero_sizes, half of them small and half large: half to train on, half held out."""
    problems, rng = make_zero_sizes.problems(), random.Random(0)
    drawn = []
    for size in (make_zero_sizes.SMALL, make_zero_sizes.LARGE):
        drawn += rng.sample([problem for problem in problems if make_zero_sizes.size_of(problem.text) == size], 192)
    rows = ({"id": p.id, "problem": p.text, "answer": p.answer, "grader": p.grader} for p in drawn)
    (folder / "mixed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def at(metric: str) -> Callable[[Row], float | None]:
    return lambda row: row.get(metric)


def last(metric: str, digits: int) -> Callable[[Sequence[Row]], str]:
    """The value at the last step that has it."""
    return lambda rows: f"{[row[metric] for row in rows if metric in row][-1]:.{digits}f}"


def signal(row: Row) -> float | None:
    """The share of groups whose rewards differ."""
    return 1 - row["group/agreeing"] if "group/agreeing" in row else None


def mean_signal(rows: Sequence[Row]) -> str:
    shares = [share for row in rows if (share := signal(row)) is not None]
    return f"{sum(shares) / len(shares):.2f}"


def first_at(accuracy: float, metric: str) -> Callable[[Sequence[Row]], str]:
    """The value of `metric` at the first evaluation with this held-out accuracy."""
    return lambda rows: next((f"{r.get(metric, 0):.0f}" for r in rows if r.get("eval/heldout/avg", 0) >= accuracy), "-")


LENGTH_CONTROL = Comparison(
    prepare=copy_objectives,
    settings=(
        "train model=tiny_guess reward=accuracy optimizer.lr=2e-4 steps=40 eval.every_steps=20 data.num_heldout=366 "
        "logger=none"
    ),
    arms={
        "none": "",
        "token_mean": "algorithm.weighting=token_mean",
        "kimi_0_2": "algorithm.functions.advantage=examples/objectives/kimi_length.py:kimi_length",
        "kimi_1": "algorithm.functions.advantage={folder}/kimi_1.py:kimi_length",
        "gfpo_short": "algorithm.functions.advantage={folder}/gfpo_4.py:gfpo",
        "gfpo_token_mean": "algorithm.weighting=token_mean algorithm.functions.advantage={folder}/gfpo_4.py:gfpo",
    },
    drawn={
        "none": "GRPO, no control",
        "token_mean": "GRPO, mean over tokens",
        "kimi_0_2": "Kimi, weight 0.2",
        "kimi_1": "Kimi, weight 1",
        "gfpo_short": "GFPO, the 4 shortest of 8",
        "gfpo_token_mean": "GFPO, mean over tokens",
    },
    panels=(
        ("held-out accuracy", at("eval/heldout/avg")),
        ("tokens of right samples", at("length/correct")),
        ("tokens of wrong samples", at("length/wrong")),
    ),
    x=("step", "step"),
    columns={
        "accuracy": last("eval/heldout/avg", 3),
        "tokens": last("eval/heldout/length", 1),
        "tokens, right": last("eval/heldout/length_correct", 1),
        "tokens, wrong": last("eval/heldout/length_wrong", 1),
        "tokens sampled": last("total/tokens", 0),
    },
)

CURRICULUM = Comparison(
    prepare=write_mixed_problems,
    settings=(
        "train model=tiny_sizes data=file data.path={folder}/mixed.jsonl data.num_heldout=192 reward=accuracy "
        "optimizer.lr=2e-4 steps=150 eval.every_steps=10 logger=none"
    ),
    arms={
        "off": "",
        "skip": "data.curriculum.pass_rate=[0.05,0.95]",
        "skip_easy": "data.curriculum.pass_rate=[0,0.95]",
        "dynamic": "algorithm.dynamic_sampling.max_refills=3",
    },
    drawn={
        "off": "all problems",
        "skip": "curriculum, [0.05, 0.95]",
        "skip_easy": "curriculum, [0, 0.95]",
        "dynamic": "dynamic sampling",
    },
    panels=(
        ("held-out accuracy", at("eval/heldout/avg")),
        ("share of groups with a signal", signal),
    ),
    x=("total/samples", "responses sampled"),
    columns={
        "share with a signal": mean_signal,
        "steps to 0.8": first_at(0.8, "step"),
        "responses to 0.8": first_at(0.8, "total/samples"),
        "accuracy": last("eval/heldout/avg", 3),
        "responses": last("total/samples", 0),
        "tokens": last("total/tokens", 0),
    },
)

COMPARISONS = {"length_control": LENGTH_CONTROL, "curriculum": CURRICULUM}


def train(run_dir: Path, command: str) -> None:
    """Run `r1zero <command>` into `run_dir`, unless that is done."""
    if (run_dir / "result.json").is_file():
        return
    shutil.rmtree(run_dir, ignore_errors=True)
    print(f"r1zero {command} run.dir={run_dir}", flush=True)
    r1zero = Path(sys.executable).parent / "r1zero"
    subprocess.run([r1zero, *command.split(), f"run.dir={run_dir}"], cwd=REPO, check=True)


def draw(comparison: Comparison, runs: Mapping[tuple[str, int], Sequence[Row]], png: Path) -> None:
    """One panel for each quantity: a thin line for each seed, and a thick one for the mean over them."""
    metric, label = comparison.x
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    plots = figure.subplots(1, len(comparison.panels))
    for axes, (title, value) in zip(plots, comparison.panels, strict=True):
        for number, (arm, name) in enumerate(comparison.drawn.items()):
            curves = [_curve(rows, metric, value) for (of, _), rows in runs.items() if of == arm]
            for x, y in curves:
                axes.plot(x, y, color=f"C{number}", linewidth=0.6, alpha=0.35)
            xs, ys = (
                [sum(values) / len(values) for values in zip(*lists, strict=True)]
                for lists in zip(*curves, strict=True)
            )
            axes.plot(xs, ys, color=f"C{number}", linewidth=1.8, label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_ylim(bottom=0)
    handles, names = plots[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(png, dpi=120)


def _curve(rows: Sequence[Row], metric: str, value: Callable[[Row], float | None]) -> tuple[list[float], list[float]]:
    """Where a run has `value`, its x and y; means of ten steps if it is there at each."""
    points = [(row.get(metric, 0), y) for row in rows if (y := value(row)) is not None]
    size = 10 if len(points) > len(rows) / 2 else 1
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    means = [[sum(column) / len(chunk) for column in zip(*chunk, strict=True)] for chunk in chunks]
    return [x for x, _ in means], [y for _, y in means]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these arms")
    given = parser.parse_args()
    comparison = COMPARISONS[given.comparison]
    folder = Path("runs") / given.comparison
    (REPO / folder).mkdir(parents=True, exist_ok=True)
    comparison.prepare(REPO / folder)
    runs = {}
    for seed in given.seeds:
        for arm in given.only or comparison.arms:
            command = f"{comparison.settings} {comparison.arms[arm]} seed={seed}".format(folder=folder)
            train(REPO / folder / f"{arm}_{seed}", command)
            runs[arm, seed] = read_metrics(REPO / folder / f"{arm}_{seed}/metrics.jsonl")
    print(
        table(
            ["arm", "seed", *comparison.columns],
            [
                [arm, f"{seed}", *(column(rows) for column in comparison.columns.values())]
                for (arm, seed), rows in sorted(runs.items())
            ],
        )
    )
    if all((arm, seed) in runs for arm in comparison.drawn for seed in given.seeds):
        draw(comparison, runs, REPO / f"docs/{given.comparison}.png")


if __name__ == "__main__":
    main()
