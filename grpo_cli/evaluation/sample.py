"""`r1zero sample` on a rank: responses to the training problems, of which rank 0 keeps those that pass by rule."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from grpo_cli.choices import OnBadGold
from grpo_cli.config.tasks import SampleTask
from grpo_cli.data.problems import checkable, load_problem_set
from grpo_cli.data.templates import render
from grpo_cli.errors import DataError, SetupError
from grpo_cli.evaluation.completion import Completed, Series, complete, engine_responders
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.provenance import data_source, files_hash, model_source, versions
from grpo_cli.evaluation.rejection import Kept, by_difficulty, draw_pairs, keep
from grpo_cli.evaluation.report import figures_table, log_to_wandb, report_console
from grpo_cli.evaluation.traces import card_of, data_card, pair, trace, traces_file
from grpo_cli.jsonl import json_text
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.ranks import gather, rank, start_ranks
from grpo_cli.reward.reward import Reward, gold_fault
from grpo_cli.runs.frozen import public_settings
from grpo_cli.secret import mapped, masked
from grpo_cli.types import Problem

# What to do where a rule has dropped the most, and nothing is left.
MENDS = {
    "skipped": "Choose shorter problems, or a model that reads more.",
    "truncated": "Raise sample.max_new_tokens, in another run.dir.",
    "correct": "Raise sample.n, or choose a better model or easier problems.",
    "well_formed": "Take well_formed off sample.keep, or choose the template that the model was trained with.",
    "one_language": "Take one_language off sample.keep, or set another sample.language.",
    "min_tokens": "Lower sample.min_tokens.",
    "max_tokens": "Raise sample.max_tokens.",
}


def sample(config: SampleTask, terminal: TextIO) -> None:
    """Make what is missing of the samples in `<run.dir>/sample/`; rank 0 then keeps by rule and writes what is kept.

    Raises DataError where nothing is; the samples stay.
    """
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    problems = _drawn(_gradable(checkable(load_problem_set(config.data, config.seed).train), config, console), config)
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


def _gradable(problems: Sequence[Problem], config: SampleTask, console: Console) -> list[Problem]:
    faults = {problem.id: fault for problem in problems if (fault := gold_fault(problem))}
    if faults:
        id, fault = next(iter(faults.items()))
        summary = (
            f"{len(faults)} of {len(problems)} problems have an answer that cannot be graded, such as {id}: {fault}."
        )
        if config.data.on_bad_gold == OnBadGold.error:
            raise DataError(f"{summary} Mend them, or leave them out with data.on_bad_gold=drop.")
        if len(faults) == len(problems):
            raise DataError(f"{summary} None is left. Set data.grader to how they are judged, or choose other data.")
        console.print(f"{summary} They are left out.", markup=False, highlight=False, soft_wrap=True)
    return [problem for problem in problems if problem.id not in faults]


def _drawn(problems: Sequence[Problem], config: SampleTask) -> Sequence[Problem]:
    count = config.sample.num_problems
    return random.Random(config.seed).sample(problems, count) if 0 < count < len(problems) else problems


def _report(
    completed: Completed, problems: Sequence[Problem], model: BaseModel, config: SampleTask, console: Console
) -> None:
    run_dir, samples = Path(config.run.dir), completed.samples
    kept = keep(samples, config.sample)
    if not kept.samples:
        raise DataError(_nothing_kept(kept, len(samples), run_dir / "sample"))
    pairs = draw_pairs(samples, kept.samples, config.sample.pairs_per_problem, config.seed)
    settings = public_settings(config)
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
        "model": settings["model"] | {"checkpoint": config.checkpoint} | model_source(model.folder),
        "data": data_source(config.data, problems),
        "sampling": settings["sample"] | {"seed": config.seed},
        "template": settings["template"],
        "reward": settings["reward"],
        "engine": {key: settings["cluster"][key] for key in ("device", "dtype")},
        "versions": versions(),
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
            f"{error.filename or traces} cannot be written: {error.strerror}. Mend it and start again: the samples are "
            f"in {run_dir / 'sample'}, and none is made anew."
        ) from error
    log_to_wandb("sample", {config.data.name: _figures(results)}, run_dir, settings, config.logger, console)
    console.print(_yield_table(results["yield"]))
    console.print(_difficulty_table(results["difficulty"]))
    said = f"{traces}: {len(kept.samples)} responses; {card_of(traces).name} beside it tells what they are"
    console.print(f"{said}\n{run_dir}: sample.json, pairs.jsonl", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Train on them: r1zero sft data.path={traces}", markup=False, highlight=False, soft_wrap=True)


def _nothing_kept(kept: Kept, num_samples: int, folder: Path) -> str:
    dropped = ", ".join(f"{rule} {number}" for rule, number in kept.dropped.items() if number)
    worst = max(kept.dropped, key=kept.dropped.get)
    return (
        f"None of {num_samples} responses is kept. Dropped by rule: {dropped}. {MENDS[worst]} The samples stay in "
        f"{folder}: with the same run.dir none is made anew."
    )


def _write(
    traces: Iterable[Mapping[str, Any]],
    pairs: Iterable[Mapping[str, Any]],
    results: Mapping[str, Any],
    file: Path,
    config: SampleTask,
) -> None:
    """Write all files beside their places and then move them there.

    sample.json comes first: by the hashes in it a later start knows the files for those of this run.
    """
    run_dir = Path(config.run.dir)
    new_traces = _beside(file, (json.dumps(row, ensure_ascii=False) + "\n" for row in traces))
    new_pairs = _beside(run_dir / "pairs.jsonl", (json.dumps(row, ensure_ascii=False) + "\n" for row in pairs))
    hashes = {"traces": files_hash([new_traces])}
    new_card = _beside(card_of(file), [masked(data_card(config, results | {"files": hashes}))])
    hashes["card"] = files_hash([new_card])
    new_results = _beside(
        run_dir / "sample.json", [json_text(mapped(results, masked) | {"files": hashes}, indent=2) + "\n"]
    )
    new_results.replace(run_dir / "sample.json")
    new_traces.replace(file)
    new_card.replace(card_of(file))
    new_pairs.replace(run_dir / "pairs.jsonl")


def _beside(file: Path, lines: Iterable[str]) -> Path:
    partial = file.with_name(f"{file.name}.tmp")
    with partial.open("w", encoding="utf-8") as writer:
        writer.writelines(lines)
    return partial


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    """What W&B shows: `kept`, `dropped/<rule>`, `problems/<class>` and so on, beside what `measure` gives."""
    counts = dict(results["yield"])
    dropped = {f"dropped/{rule}": number for rule, number in counts.pop("dropped").items()}
    shares = {f"problems/{name}": some["share"] for name, some in results["difficulty"].items()}
    return results["metrics"] | counts | dropped | shares


def _yield_table(counts: Mapping[str, Any]) -> Table:
    """A row a rule with what it dropped, between what was sampled and what is kept."""
    table = figures_table("rule", "responses", "share", "problems")
    total = counts["num_samples"]
    table.add_row("sampled", f"{total:,}", "", f"{counts['num_problems']:,}")
    for rule, number in counts["dropped"].items():
        table.add_row(f"dropped: {rule}", f"{number:,}", f"{number / total:.1%}", "")
    table.add_section()
    table.add_row("kept", f"{counts['kept']:,}", f"{counts['kept'] / total:.1%}", f"{counts['kept_problems']:,}")
    return table


def _difficulty_table(difficulty: Mapping[str, Mapping[str, float]]) -> Table:
    table = figures_table("samples right", "problems", "share", "kept")
    for name, some in difficulty.items():
        table.add_row(name, f"{some['problems']:,}", f"{some['share']:.1%}", f"{some['kept']:,}")
    return table
