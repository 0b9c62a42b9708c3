"""The metrics and results of a run, read from its folder, and its learning curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_cli.errors import DataError
from grpo_cli.files import write_whole
from grpo_cli.jsonl import as_object, json_text, parse_json, read_objects, with_nan

# Per panel: the title, then the curves as metric, label and style. Metrics that the run does not have are left out.
TRAINING = {"color": "tab:blue", "linewidth": 1.2}
PANELS = (
    (
        "accuracy",
        (
            ("reward_term/accuracy/mean", "training", TRAINING | {"alpha": 0.35}),
            ("eval/heldout/avg", "held-out", {"color": "tab:blue", "marker": "o", "markersize": 4}),
            (
                "eval/heldout/greedy",
                "held-out, greedy",
                {"color": "tab:orange", "marker": "s", "markersize": 4, "linestyle": "--"},
            ),
        ),
    ),
    ("response length (tokens)", (("length/mean", "training", TRAINING),)),
    ("self-corrections per response", (("reflection/wait_rate", "training", TRAINING),)),
)
OLD_NAMES = {"reward_term/accuracy/mean": "reward/accuracy"}  # in runs of earlier versions


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, nan for null, without an incomplete last line.

    Raises DataError with the line number if the file is damaged.
    """
    rows = []
    for number, row in read_objects(path, drop_unfinished=True):
        if not isinstance(row.get("step"), int):
            raise DataError(f"{path}, line {number} has no step. Fix it.")
        rows.append(with_nan(row))
    return rows


def evaluated_rows(run_dir: Path, last_step: int) -> list[dict[str, Any]]:
    """The rows of a finished run with an evaluation; the first is from before training, unless it is missing.

    Raises DataError if the row of the last step is missing.
    """
    file = run_dir / "metrics.jsonl"
    rows = [row for row in read_metrics(file) if any(name.startswith("eval/") for name in row)]
    if not rows or rows[-1]["step"] != last_step:
        raise DataError(
            f"{file} has no row for the last step, {last_step}. Move the last folder of {run_dir / 'checkpoints'} "
            f"away: resume={run_dir} then runs these steps again."
        )
    return rows


def write_result(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Write the result of a run to result.json."""
    write_whole(run_dir / "result.json", json_text(row))


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """The result of a run, nan for null; None if the run did not finish.

    Raises DataError if result.json is damaged.
    """
    file = run_dir / "result.json"
    if not file.is_file():
        return None
    result = with_nan(as_object(parse_json(file.read_bytes(), f"{file}"), f"{file}"))
    if "step" not in result:
        raise DataError(f"{file} has no step. Remove it; the run writes it again when it is resumed.")
    return result


def plot_learning_curve(metrics_jsonl: Path, png: Path) -> None:
    """Plot accuracy, mean response length and self-corrections per response over the steps of a run."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    rows = read_metrics(metrics_jsonl)
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for metric, label, style in curves:
            values = [(row["step"], row.get(metric, row.get(OLD_NAMES.get(metric, "")))) for row in rows]
            if points := [(step, value) for step, value in values if value is not None]:
                axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_ylim(bottom=0)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(png, dpi=120)
