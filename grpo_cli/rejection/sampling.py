"""`r1zero sample` on a rank: samples responses to the training problems; rank 0 keeps those that pass the rules."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from grpo_cli.config.grammar import setting
from grpo_cli.config.tasks import SampleTask
from grpo_cli.data.problems import checkable, load_problem_set
from grpo_cli.data.templates import render
from grpo_cli.errors import DataError, SetupError
from grpo_cli.evaluation.chosen_problems import draw_problems, gradable_problems
from grpo_cli.evaluation.completion import Completed, Series, complete, engine_responders
from grpo_cli.evaluation.display import log_to_trackers, metrics_table, report_console
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.provenance import data_source, files_hash, provenance, results_text
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.progress import stage
from grpo_cli.ranks import gather, rank, start_ranks
from grpo_cli.rejection.keep_rules import Kept, by_difficulty, draw_pairs, keep
from grpo_cli.rejection.traces import card_of, data_card, difficulty_rows, pair, trace, traces_file, yield_rows
from grpo_cli.reward.reward import Reward
from grpo_cli.secret import masked
from grpo_cli.types import Problem

# By the rule that dropped the most: what to change if nothing is kept.
ADVICE = {
    "skipped": "Use shorter problems, or a model with a longer context.",
    "truncated": "Raise sample.max_new_tokens, in another run.dir.",
    "correct": "Raise sample.n, or use a better model or easier problems.",
    "well_formed": "Remove well_formed from sample.keep, or use the template that the model was trained with.",
    "one_language": "Remove one_language from sample.keep, or set another sample.language.",
    "min_tokens": "Lower sample.min_tokens.",
    "max_tokens": "Raise sample.max_tokens.",
}


def sample(config: SampleTask, terminal: TextIO) -> None:
    """Add the missing samples to `<run.dir>/sample/`; rank 0 then writes those that pass the rules.

    Raises DataError if none does; the samples stay.
    """
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    with stage(console, f"loading {config.model.name} and {config.data.name}"):
        problems = checkable(load_problem_set(config.data, config.seed).train)
        problems = gradable_problems(problems, config.data.on_bad_gold, console)
        if config.sample.num_problems:
            problems = draw_problems(problems, config.sample.num_problems, config.seed)
        model = load_base_model(config.model)
    name = config.data.name
    all_series = [Series(name, problems, config.template, config.sample.n)]
    with Reward(config.reward, config.template, config.sample.max_new_tokens, config.cluster.device) as reward:
        completed = complete(
            all_series,
            lambda: engine_responders(all_series, model, config.sample, config.cluster, console),
            {name: reward},
            Path(config.run.dir) / "sample",
            config.seed,
            console,
        )
    if rank() == 0:
        _report(completed[name], problems, model, config, console)
    gather(None)  # no rank ends while another is still at work


def _report(
    completed: Completed, problems: Sequence[Problem], model: BaseModel, config: SampleTask, console: Console
) -> None:
    run_dir, samples = Path(config.run.dir), completed.samples
    kept = keep(samples, config.sample)
    if not kept.samples:
        raise DataError(_nothing_kept(kept, len(samples), run_dir / "sample"))
    pairs = draw_pairs(samples, kept.samples, config.sample.pairs_per_problem, config.seed)
    results = {
        "yield": {
            "num_problems": len(problems),
            "num_samples": len(samples),
            "dropped": kept.dropped,
            "kept": len(kept.samples),
            "kept_problems": len({sample.id for sample in kept.samples}),
            "pairs": len(pairs),
            "generated_tokens": sum(sample.num_tokens for sample in samples),
            "kept_tokens": sum(sample.num_tokens for sample in kept.samples),
        },
        "difficulty": by_difficulty(samples, kept.samples),
        "metrics": measure(samples, None, config.sample.language),
        "speed": completed.speed,
        "data": data_source(config.data, problems),
        **provenance(config, model.folder, "sample", "template", "reward"),
    }
    traces = traces_file(config)
    prompts = {prompt.problem.id: prompt for prompt in render(problems, config.template, model.tokenizer)}
    try:
        _write(
            (trace(sample, prompts[sample.id], config) for sample in kept.samples),
            (pair(chosen, rejected, prompts[chosen.id].problem.text) for chosen, rejected in pairs),
            results,
            traces,
            config,
        )
    except OSError as error:
        raise SetupError(
            f"{error.filename or traces} cannot be written: {error.strerror}. Fix this and run the command again: it "
            f"reuses the samples in {run_dir / 'sample'}."
        ) from error
    log_to_trackers("sample", {config.data.name: _wandb_metrics(results)}, config, console)
    console.print(metrics_table(yield_rows(results)))
    console.print(metrics_table(difficulty_rows(results)))
    console.print(f"{traces}: {len(kept.samples)} responses, described in {card_of(traces).name}")
    console.print(f"{run_dir}: sample.json, pairs.jsonl")
    console.print(f"Train on them: r1zero sft {setting('data.path', traces)}")


def _nothing_kept(kept: Kept, num_samples: int, folder: Path) -> str:
    dropped = ", ".join(f"{rule} {number}" for rule, number in kept.dropped.items() if number)
    strictest = max(kept.dropped, key=lambda rule: kept.dropped[rule])
    return (
        f"None of {num_samples} responses is kept. Dropped by rule: {dropped}. {ADVICE[strictest]} The samples stay in "
        f"{folder} and are reused with the same run.dir."
    )


def _write(
    traces: Iterable[Mapping[str, Any]],
    pairs: Iterable[Mapping[str, Any]],
    results: dict[str, Any],
    file: Path,
    config: SampleTask,
) -> None:
    """Write all files under temporary names, then rename them.

    sample.json is renamed first: its hashes show a later start which files this run wrote.
    """
    run_dir = Path(config.run.dir)
    new_traces = _write_temporary(file, (json.dumps(row, ensure_ascii=False) + "\n" for row in traces))
    new_pairs = _write_temporary(run_dir / "pairs.jsonl", (json.dumps(row, ensure_ascii=False) + "\n" for row in pairs))
    hashes = {"traces": files_hash([new_traces])}
    new_card = _write_temporary(card_of(file), [masked(data_card(config, results | {"files": hashes}))])
    hashes["card"] = files_hash([new_card])
    new_results = _write_temporary(run_dir / "sample.json", [results_text(results | {"files": hashes})])
    for new in (new_results, new_traces, new_card, new_pairs):
        new.replace(new.with_suffix(""))  # without .tmp


def _write_temporary(file: Path, lines: Iterable[str]) -> Path:
    partial = file.with_name(f"{file.name}.tmp")
    with partial.open("w", encoding="utf-8") as writer:
        writer.writelines(lines)
    return partial


def _wandb_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of `measure`, with `kept`, `dropped/<rule>`, `problems/<class>` and so on."""
    counts = dict(results["yield"])
    dropped = {f"dropped/{rule}": number for rule, number in counts.pop("dropped").items()}
    shares = {f"problems/{name}": row["share"] for name, row in results["difficulty"].items()}
    return results["metrics"] | counts | dropped | shares
