"""The course of a run, read back from its metrics.jsonl and drawn."""

from pathlib import Path
from typing import Any

from grpo_cli.jsonl import read_objects

# One panel each: title, then its curves as metric, label and look. A metric that the run lacks is not drawn.
TRAINING = {"color": "tab:blue", "linewidth": 1.2}
PANELS = (
    (
        "accuracy",
        (
            ("reward/accuracy", "training", TRAINING | {"alpha": 0.35}),
            ("eval/heldout/avg", "held-out", {"color": "tab:blue", "marker": "o", "markersize": 4}),
            (
                "eval/heldout/greedy",
                "held-out, greedy",
                {"color": "tab:orange", "marker": "s", "markersize": 4, "linestyle": "--"},
            ),
        ),
    ),
    ("response length (tokens)", (("length/mean", "training", TRAINING),)),
    ("self-corrections a response", (("reflection/wait_rate", "training", TRAINING),)),
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, without a last line that was cut off while it was written."""
    return [row for _, row in read_objects(path, drop_unfinished=True)]


def plot_learning_curve(metrics_jsonl: Path, png: Path) -> None:
    """Draws accuracy, mean response length and self-corrections a response over the steps of a run."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    rows = read_metrics(metrics_jsonl)
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for metric, label, look in curves:
            if points := [(row["step"], row[metric]) for row in rows if metric in row]:
                axes.plot(*zip(*points, strict=True), label=label, **look)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_ylim(bottom=0)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(png, dpi=120)
