"""`r1zero eval` on a rank: each benchmark's missing samples, then rank 0 reports on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from grpo_cli.config.tasks import EvalTask
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.evaluation.benchmark import answer_equality
from grpo_cli.evaluation.completion import Completed, Series, complete, engine_responders
from grpo_cli.evaluation.measures import accuracy_curve, measure
from grpo_cli.evaluation.provenance import data_source, files_hash, model_source, versions
from grpo_cli.evaluation.report import log_to_wandb, macro_average, plot_curves, report_console, result_table
from grpo_cli.evaluation.responses import Responder, StoredResponder
from grpo_cli.jsonl import json_text
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.ranks import gather, rank, start_ranks
from grpo_cli.reward.reward import Reward, gold_fault
from grpo_cli.runs.frozen import public_settings
from grpo_cli.secret import mapped, masked
from grpo_cli.types import Problem

MAX_SHOWN = 5  # faults on the terminal; eval.json has all


def evaluate(config: EvalTask, terminal: TextIO) -> None:
    """Make what is missing of the samples in `<run.dir>/eval/`; rank 0 then writes `<run.dir>/eval.json`."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    problems = {name: load_benchmark(name, benchmark) for name, benchmark in config.benchmark.items()}
    stored = StoredResponder(Path(config.rescore)) if config.rescore else None
    model = None if stored else load_base_model(config.model)
    all_series = [
        Series(name, some, config.template, stored.num_samples(name, some) if stored else config.eval.n)
        for name, some in problems.items()
    ]

    def responders() -> Mapping[str, Responder]:
        if stored:
            return dict.fromkeys(problems, stored)
        return engine_responders(all_series, model, config.eval, config.cluster, console)

    with Reward(config.reward, config.template, config.eval.max_new_tokens, config.cluster.device) as reward:
        rewards = dict.fromkeys(problems, reward)
        completed = complete(all_series, responders, rewards, Path(config.run.dir) / "eval", config.seed, console)
        if rank() == 0:
            _report(completed, problems, model, reward, config, console)
    gather(None)  # no rank ends while another is still at work


def _report(
    completed: Mapping[str, Completed],
    problems: Mapping[str, Sequence[Problem]],
    model: BaseModel | None,
    reward: Reward,
    config: EvalTask,
    console: Console,
) -> None:
    run_dir = Path(config.run.dir)
    samples = {name: series.samples for name, series in completed.items()}
    metrics = {
        name: measure(some, answer_equality(config.benchmark[name].grader, reward), config.eval.language)
        for name, some in samples.items()
    }
    curves = {name: accuracy_curve(some) for name, some in samples.items()}
    benchmarks = {
        name: {
            **metrics[name],
            "curve": curves[name],
            "skipped_problems": {sample.id: sample.skipped for sample in samples[name] if sample.skipped},
            "ungradable_problems": {problem.id: fault for problem in some if (fault := gold_fault(problem))},
            "data": data_source(config.benchmark[name], some),
            "speed": completed[name].speed,
        }
        for name, some in problems.items()
    }
    settings = public_settings(config)
    results = {
        "benchmarks": benchmarks,
        "macro_average": macro_average(list(metrics.values())),
        "model": _source(config, model),
        "sampling": settings["eval"] | {"seed": config.seed},
        "template": settings["template"],
        "reward": settings["reward"],
        "engine": {key: settings["cluster"][key] for key in ("device", "dtype")},
        "versions": versions(),
    }
    (run_dir / "eval.json").write_text(json_text(mapped(results, masked), indent=2) + "\n")
    if max(map(len, curves.values())) > 1:
        plot_curves(curves, run_dir / "eval.png")
    log_to_wandb("eval", metrics, run_dir, settings, config.logger, console)
    console.print(result_table(metrics))
    for name, found in benchmarks.items():
        _warn(console, name, "count as wrong, since nothing was sampled", found["skipped_problems"])
        _warn(console, name, "have an answer that cannot be graded, and count as wrong", found["ungradable_problems"])
    console.print(f"{run_dir}: eval.json, and each sample in eval/", highlight=False, soft_wrap=True)


def _source(config: EvalTask, model: BaseModel | None) -> dict[str, Any]:
    if model is None:
        return {"responses": config.rescore, "responses_sha256": files_hash([Path(config.rescore)])}
    return asdict(config.model) | {"checkpoint": config.checkpoint} | model_source(model.folder)


def _warn(console: Console, name: str, fate: str, faults: Mapping[str, str]) -> None:
    if faults:
        shown = "\n".join(f"  {id}: {fault}" for id, fault in list(faults.items())[:MAX_SHOWN])
        more = "\n  ... (all in eval.json)" if len(faults) > MAX_SHOWN else ""
        console.print(f"{name}: {len(faults)} problems {fate}:\n{shown}{more}", markup=False, highlight=False)
