"""What a pipeline's stages cost and what their models can do, from what each left in its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table
from safetensors import safe_open

from grpo_cli.analysis.report import read_metrics
from grpo_cli.jsonl import with_nan
from grpo_cli.pipeline.running import DONE, Record
from grpo_cli.runs.frozen import read_frozen

BASE = "base"
HEADINGS = ("stage", "accuracy ± s.e.", "pass@n", "length", "well-formed", "language")
COSTS = ("kept", "generated", "trained", "GFLOP", "seconds")
SAME_SAMPLING = ("temperature", "top_p", "max_new_tokens")


@dataclass(frozen=True)
class Row:
    """What is known of one stage; what it has not, or what is not there yet, is None."""

    stage: str
    metrics: Mapping[str, float] | None  # of its model: avg, avg_se, pass@..., length, well_formed, language
    responses: float  # that were generated in it
    generated_tokens: float
    trained_tokens: float
    parameters: int | None
    seconds: float | None = None
    kept: str = ""  # of a sample stage: responses kept, of how many

    @property
    def gflop(self) -> float | None:
        """2 P for each generated token and 6 P for each trained one, where P is the number of parameters."""
        if self.parameters is None:
            return None
        return self.parameters * (2 * self.generated_tokens + 6 * self.trained_tokens) / 1e9


@dataclass(frozen=True)
class Point:
    """An accuracy, and the responses that had been generated on the way to it from the base model."""

    responses: float
    accuracy: float


def report_rows(records: Sequence[Record], folder: Path) -> list[Row]:
    """The base model where it was evaluated, then each stage that is done, in order."""
    done = [record for record in records if record["status"] == DONE]
    metrics = {record["evaluates"]: _eval_metrics(folder / record["name"]) for record in done if record["evaluates"]}
    rows = [Row(BASE, metrics[BASE], 0, 0, 0, None)] if BASE in metrics else []
    for record in done:
        if record["command"] == "eval" and not record["evaluates"]:  # a stage of its own
            metrics[record["name"]] = _eval_metrics(folder / record["name"])
        if not record["evaluates"]:
            rows.append(_row(record, folder / record["name"], metrics.get(record["name"])))
    return rows


def report_table(rows: Sequence[Row]) -> Table:
    """A row a stage: what its model can do, then what it cost."""
    table = Table()
    for heading in (*HEADINGS, *COSTS):
        table.add_column(heading, no_wrap=True, justify="left" if heading == HEADINGS[0] else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def report_markdown(rows: Sequence[Row], name: str) -> str:
    """The table and what its columns mean."""
    lines = [
        f"# {name}",
        "",
        f"| {' | '.join((*HEADINGS, *COSTS))} |",
        "|" + "---|" * len(HEADINGS + COSTS),
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
        "Accuracy is the mean over problems, with its standard error; generated and trained are tokens; kept are the "
        "responses that passed the rules, of those sampled. GFLOP is 2 P x generated + 6 P x trained for a model of P "
        "parameters, without the evaluations. Seconds are those of the stage, its start among them.",
    ]
    return "\n".join(lines) + "\n"


def curves(records: Sequence[Record], folder: Path) -> dict[str, list[Point]]:
    """For each evaluated stage that no other goes on from: the accuracies from the base model to it.

    The responses of a point are those of all stages that it was made from. A stage of reinforcement learning has points
    inside, where it evaluated as the pipeline does.
    """
    rows = {row.stage: row for row in report_rows(records, folder)}
    made_from: dict[str, list[str]] = {}  # of each stage, all that led to it, in order
    for record in records:
        led = {earlier for source in record["sources"] for earlier in [*made_from.get(source, []), source]}
        made_from[record["name"]] = [stage for stage in made_from if stage in led]
    trained = {record["evaluates"] for record in records} - {None, BASE}
    evaluated = [name for name in rows if name in trained and rows[name].metrics]
    before = {name: next((e for e in reversed(made_from[name]) if e in evaluated), BASE) for name in evaluated}
    drawn = {}
    for leaf in [name for name in evaluated if name not in before.values()]:
        chain = [leaf]
        while before.get(chain[0]):
            chain.insert(0, before[chain[0]])
        points = []
        for stage in chain:
            if stage not in rows:  # a base that was not evaluated
                continue
            spent = sum(rows[earlier].responses for earlier in made_from.get(stage, []) if earlier in rows)
            if points:
                points += _inside(folder / stage, folder / f"{stage}_eval", spent)
            points.append(Point(spent + rows[stage].responses, rows[stage].metrics["avg"]))
        drawn[leaf] = points
    return drawn


def plot(drawn: Mapping[str, Sequence[Point]], png: Path) -> None:
    """Draws accuracy against responses generated, a curve a chain of stages."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, points in drawn.items():
        places = [point.responses for point in points]
        axes.plot(places, [point.accuracy for point in points], marker="o", markersize=3, label=name)
    axes.set_xlabel("responses generated", fontsize=9)
    axes.set_ylabel("accuracy", fontsize=9)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(png, dpi=120)


def num_parameters(folder: Path) -> int | None:
    """The weights in a model's folder, counted from the headers of its safetensors; None where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(_num_weights, files)) if files else None


def _row(record: Record, folder: Path, metrics: Mapping[str, float] | None) -> Row:
    if record["command"] == "sample":
        found = json.loads((folder / "sample.json").read_text())
        of = found["yield"]
        kept = f"{of['kept']:,} of {of['num_samples']:,}"
        model = _model_folder(found["model"]["path"])
        parameters = num_parameters(model) if model else None
        return Row(
            record["name"], metrics, of["num_samples"], of["generated_tokens"], 0, parameters, record["seconds"], kept
        )
    steps = _steps(folder)
    return Row(
        record["name"],
        metrics,
        sum(map(_responses, steps)),
        sum(step.get("rollout/tokens", 0) for step in steps),
        sum(step.get("perf/trained_tokens", 0) for step in steps),
        num_parameters(folder / "model"),
        record["seconds"],
    )


def _cells(row: Row) -> list[str]:
    metrics = row.metrics or {}
    accuracy = f"{metrics['avg']:.1%} ± {metrics['avg_se']:.1%}" if "avg" in metrics else ""
    largest = max((int(key.removeprefix("pass@")) for key in metrics if key.startswith("pass@")), default=1)
    return [
        row.stage,
        accuracy,
        f"{metrics[f'pass@{largest}']:.1%} (n = {largest})" if largest > 1 else "",
        f"{metrics['length']:.1f}" if "length" in metrics else "",
        *(f"{metrics[key]:.1%}" if key in metrics else "" for key in ("well_formed", "language")),
        row.kept,
        *(f"{tokens:,.0f}" if tokens else "" for tokens in (row.generated_tokens, row.trained_tokens)),
        f"{row.gflop:,.1f}" if row.gflop else "",
        f"{row.seconds:,.0f}" if row.seconds is not None else "",
    ]


def _eval_metrics(folder: Path) -> dict[str, float]:
    """The mean over benchmarks of every figure that all of them have; the average and its error as evaluated."""
    found = json.loads((folder / "eval.json").read_text())
    benchmarks = list(found["benchmarks"].values())
    shared = [key for key in benchmarks[0] if all(isinstance(some.get(key), int | float) for some in benchmarks)]
    return {key: fmean(some[key] for some in benchmarks) for key in shared} | with_nan(found["macro_average"])


def _steps(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics by step; of a step that was done again, the last."""
    file = folder / "metrics.jsonl"
    rows = read_metrics(file) if file.is_file() else []
    return list({row["step"]: row for row in rows}.values())


def _responses(step: Mapping[str, float]) -> int:
    return round(step["rollout/tokens"] / step["length/mean"]) if step.get("length/mean") else 0


def _inside(stage: Path, evaluation: Path, spent: float) -> list[Point]:
    """The accuracies while a stage was trained, by the very problems and sampling of its evaluation.

    The training's own held-out problems count where they are of the benchmark that the pipeline evaluates.
    """
    rows = _steps(stage)
    if not rows or not any("rollout/tokens" in row for row in rows):
        return []
    training = read_frozen(stage / "config.yaml")
    found = json.loads((evaluation / "eval.json").read_text())
    sampling, benchmarks = found["sampling"], found["benchmarks"]
    same = all(training.eval[key] == sampling[key] for key in SAME_SAMPLING)
    of_heldout = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": training.rollout.max_new_tokens}
    sources = {some["data"].get("source") for some in benchmarks.values()}
    if same and all(f"eval/{name}/avg" in rows[-1] for name in benchmarks):
        names = list(benchmarks)
    elif of_heldout == {key: sampling[key] for key in SAME_SAMPLING} and sources == {training.data.source}:
        names = ["heldout"]
    else:
        return []
    points = []
    for row in rows[:-1]:  # the last is the model that the pipeline evaluates
        spent += _responses(row)
        if row["step"] > 0 and all(f"eval/{name}/avg" in row for name in names):
            points.append(Point(spent, fmean(row[f"eval/{name}/avg"] for name in names)))
    return points


def _num_weights(file: Path) -> int:
    with safe_open(file, "numpy") as weights:
        names = weights.keys()
        return sum(prod(weights.get_slice(name).get_shape()) for name in names)


def _model_folder(path: str) -> Path | None:
    """Where a model is on this machine; None of one that is not."""
    if (folder := Path(path).expanduser()).is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from grpo_cli.model import BUILTIN  # which imports transformers

    if path in BUILTIN:
        return BUILTIN[path]()
    try:
        return Path(snapshot_download(path, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
