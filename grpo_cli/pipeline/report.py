"""The results of a pipeline's stages as one table, read from their folders."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from grpo_cli.jsonl import with_nan
from grpo_cli.pipeline.run import Progress


def report_table(progress: Progress, folder: Path) -> Table:
    """A row for each started stage: what it made, the accuracy of its model on each benchmark, and its seconds.

    The evaluation `<stage>_eval` is shown in the row of its stage.
    """
    commands = {name: entry["words"][0] for name, entry in progress.items() if entry["done"]}
    evals = {name: _read(folder / name / "eval.json")["benchmarks"] for name in commands if commands[name] == "eval"}
    benchmarks = list(dict.fromkeys(benchmark for measured in evals.values() for benchmark in measured))
    table = Table("stage", "made", *(f"{name}: accuracy ± s.e." for name in benchmarks), "seconds", box=box.MARKDOWN)
    for name, entry in progress.items():
        if name.removesuffix("_eval") in progress.keys() - {name}:
            continue
        made = _made(folder / name, commands[name]) if name in commands else "not done"
        measured = evals.get(name) or evals.get(f"{name}_eval") or {}
        accuracies = [
            "{avg:.1%} ± {avg_se:.1%}".format_map(with_nan(measured[benchmark])) if benchmark in measured else ""
            for benchmark in benchmarks
        ]
        table.add_row(name, made, *accuracies, f"{entry['seconds']:,.0f}")
    return table


def _made(folder: Path, command: str) -> str:
    if command == "sample":
        counts = _read(folder / "sample.json")["yield"]
        return f"{counts['kept']:,} of {counts['num_samples']:,} responses kept"
    return f"{folder.name}/{'eval.json' if command == 'eval' else 'model'}"


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
