"""`r1zero analyze` on a rank: samples a base model under each template, then rank 0 reports what it can do.

A judging model, if there is one, runs between the two in new processes, because a vLLM engine keeps its GPU memory
until its process ends.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from grpo_cli.config.tasks import AnalyzeTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.problems import checkable, load_problems
from grpo_cli.evaluation.base_model import answers_question, base_model_metrics, trainable_share
from grpo_cli.evaluation.chosen_problems import draw_problems
from grpo_cli.evaluation.completion import Series, complete, engine_responders, stored_samples
from grpo_cli.evaluation.display import log_to_trackers, metrics_table, pair, plot_bars, report_console
from grpo_cli.evaluation.judge import judge_model, load_judge
from grpo_cli.evaluation.provenance import data_source, provenance, results_text
from grpo_cli.evaluation.samples import Sample, right_by_problem
from grpo_cli.model import load_base_model
from grpo_cli.progress import stage
from grpo_cli.ranks import gather, rank, start_ranks, world_size
from grpo_cli.reward.reward import Reward


def analyze(config: AnalyzeTask, terminal: TextIO) -> None:
    """Add the missing samples to `<run.dir>/analyze/`. Rank 0 then reports, unless a judge runs next."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    with stage(console, f"loading {config.model.name} and {config.data.name}"):
        all_series = _all_series(config)
        model = load_base_model(config.model)
    if config.analyze.judge is not None:
        judge_model(config.analyze.judge)  # reports its errors before anything is sampled
    with ExitStack() as stack:
        rewards = {
            series.name: stack.enter_context(
                Reward(config.reward, series.template, config.eval.max_new_tokens, config.cluster.device)
            )
            for series in all_series
        }
        completed = complete(
            all_series,
            lambda: engine_responders(all_series, model, config.eval, config.cluster, console),
            rewards,
            _folder(config),
            config.seed,
            console,
        )
    if rank() == 0 and config.analyze.judge is None:
        samples = {name: series.samples for name, series in completed.items()}
        answers = {series.name: _by_rule(samples[series.name], series.template) for series in all_series}
        _report(samples, answers, all_series, config, console)
    gather(None)  # no rank ends while another is still at work


def judge(config: AnalyzeTask, terminal: TextIO) -> None:
    """Ask the judging model whether each sample from `analyze` answers its question; rank 0 then reports."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    all_series = _all_series(config)
    samples = {series.name: stored_samples(series, _folder(config), config.seed) for series in all_series}
    ask = load_judge(str(config.analyze.judge), config.cluster, console)
    answers = {}
    for series in all_series:
        mine = ask(samples[series.name][rank() :: world_size()], series.problems)
        answers[series.name] = [False] * len(samples[series.name])
        for of_rank, judged in enumerate(gather(mine)):
            answers[series.name][of_rank :: world_size()] = judged
    if rank() == 0:
        _report(samples, answers, all_series, config, console)
    gather(None)  # no rank ends while another is still at work


def _by_rule(samples: Sequence[Sample], template: TemplateConfig) -> list[bool]:
    return [answers_question(sample, template.answer, template.response_prefix) for sample in samples]


def _all_series(config: AnalyzeTask) -> list[Series]:
    """The same problems under each template."""
    problems = checkable(load_problems(config.data, config.data.name, "data"))
    drawn = draw_problems(problems, config.analyze.num_problems or len(problems), config.seed)
    templates = config.templates or {"default": config.template}
    return [Series(name, drawn, template, config.eval.n) for name, template in templates.items()]


def _folder(config: AnalyzeTask) -> Path:
    return Path(config.run.dir) / "analyze"


def _report(
    all_samples: Mapping[str, Sequence[Sample]],
    answers: Mapping[str, Sequence[bool]],
    all_series: Sequence[Series],
    config: AnalyzeTask,
    console: Console,
) -> None:
    run_dir = Path(config.run.dir)
    metrics = {}
    for name, samples in all_samples.items():
        metrics[name] = base_model_metrics(samples, answers[name], config.analyze.group_sizes)
        rates = right_by_problem(samples)
        lines = [json.dumps({"id": id, "pass_rate": c / n, "n": n}) + "\n" for id, (n, c) in rates.items()]
        (run_dir / f"pass_rates_{name}.jsonl").write_text("".join(lines), encoding="utf-8")

    results = {
        "templates": metrics,
        "data": data_source(config.data, all_series[0].problems),
        "template_texts": {series.name: series.template.text for series in all_series},
        **provenance(config, load_base_model(config.model).folder, "eval"),
    }
    (run_dir / "analyze.json").write_text(results_text(results), encoding="utf-8")
    pass_key = f"pass@{min(8, config.eval.n)}"
    bars = {"answers the question": "answering", pass_key: pass_key, "reflects on itself": "reflecting"}
    plot_bars({label: {name: metrics[name][key] for name in metrics} for label, key in bars.items()}, run_dir)
    log_to_trackers("analyze", metrics, config, console)
    console.print(_table(metrics, pass_key))
    for name in metrics:
        console.print(f"{name}: {trainable_share(metrics[name], config.analyze.group_sizes)}")
    console.print(f"{run_dir}: analyze.json, analyze.png, pass_rates_<template>.jsonl")


def _table(all_metrics: Mapping[str, Mapping[str, float]], pass_key: str) -> Table:
    return metrics_table(
        [
            {
                "template": name,
                "answers": f"{metrics['answering']:.1%}",
                "avg ± s.e.": f"{metrics['avg']:.1%} ± {metrics['avg_se']:.1%}",
                pass_key: f"{metrics[pass_key]:.1%}",
                "reflects": f"{metrics['reflecting']:.1%}",
                "problems": f"{metrics['reflecting_problems']:.1%}",
                "right with / without": pair(metrics, "avg_reflecting", "avg_plain", ".1%"),
                "mixed": f"{metrics['mixed_languages']:.1%}",
                "form": f"{metrics['well_formed']:.1%}",
                "length right / wrong": pair(metrics, "length_correct", "length_wrong", ".1f"),
                "cut": f"{metrics['truncated']:.1%}",
            }
            for name, metrics in all_metrics.items()
        ]
    )
