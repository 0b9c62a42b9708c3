"""`r1zero analyze` on a rank: samples of a base model under each template, then rank 0 reports what it can do.

A judging model comes between the two, in new processes: a vLLM engine keeps its GPU memory until its process ends.
"""

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from grpo_cli.config.tasks import AnalyzeTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.problems import checkable, load_problems
from grpo_cli.evaluation.base_model import answers_question, base_model_metrics, teaching_verdict
from grpo_cli.evaluation.completion import Series, complete, engine_responders, stored_samples
from grpo_cli.evaluation.judge import judge_model, load_judge
from grpo_cli.evaluation.measures import right_of_each
from grpo_cli.evaluation.provenance import data_source, model_source, versions
from grpo_cli.evaluation.report import figures_table, log_to_wandb, plot_bars, report_console
from grpo_cli.evaluation.samples import Sample
from grpo_cli.jsonl import json_text
from grpo_cli.model import load_base_model
from grpo_cli.ranks import gather, rank, start_ranks, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.runs.frozen import public_settings
from grpo_cli.secret import mapped, masked
from grpo_cli.types import Problem

Metrics = Mapping[str, float]


def analyze(config: AnalyzeTask, terminal: TextIO) -> None:
    """Make what is missing of the samples in `<run.dir>/analyze/`. Rank 0 then reports, unless a judge comes next."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    all_series = _all_series(config)
    model = load_base_model(config.model)
    if config.analyze.judge is not None:
        judge_model(config.analyze.judge)  # its faults show before anything is sampled
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
    """Ask the judging model whether each sample that `analyze` made answers its question; rank 0 then reports."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    all_series = _all_series(config)
    samples = {series.name: stored_samples(series, _folder(config), config.seed) for series in all_series}
    ask = load_judge(config.analyze.judge, config.cluster, console)
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
    problems = _drawn(checkable(load_problems(config.data, config.data.name, "data")), config)
    templates = config.templates or {"default": config.template}
    return [Series(name, problems, template, config.eval.n) for name, template in templates.items()]


def _folder(config: AnalyzeTask) -> Path:
    return Path(config.run.dir) / "analyze"


def _drawn(problems: Sequence[Problem], config: AnalyzeTask) -> list[Problem]:
    count = config.analyze.num_problems or len(problems)
    return random.Random(config.seed).sample(problems, min(count, len(problems)))


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
        rates = right_of_each(samples)
        lines = [json.dumps({"id": id, "pass_rate": c / n, "n": n}) + "\n" for id, (n, c) in rates.items()]
        (run_dir / f"pass_rates_{name}.jsonl").write_text("".join(lines))

    source = model_source(load_base_model(config.model).folder)
    settings = public_settings(config)
    results = {
        "templates": metrics,
        "model": settings["model"] | {"checkpoint": config.checkpoint} | source,
        "data": data_source(config.data, all_series[0].problems),
        "sampling": settings["eval"] | {"seed": config.seed},
        "template_texts": {series.name: series.template.text for series in all_series},
        "engine": {key: settings["cluster"][key] for key in ("device", "dtype")},
        "versions": versions(),
    }
    (run_dir / "analyze.json").write_text(json_text(mapped(results, masked), indent=2) + "\n")
    best = f"pass@{min(8, config.eval.n)}"
    bars = {"answers the question": "answering", best: best, "reflects on itself": "reflecting"}
    plot_bars({label: {name: some[key] for name, some in metrics.items()} for label, key in bars.items()}, run_dir)
    log_to_wandb("analyze", metrics, run_dir, settings, config.logger, console)
    console.print(_table(metrics, best))
    for name, some in metrics.items():
        console.print(f"{name}: {teaching_verdict(some, config.analyze.group_sizes)}", highlight=False)
    console.print(f"{run_dir}: analyze.json, analyze.png, pass_rates_<template>.jsonl", highlight=False, soft_wrap=True)


def _table(metrics: Mapping[str, Metrics], best: str) -> Table:
    table = figures_table(
        *("template", "answers", "avg ± s.e.", best, "reflects", "problems", "right with / without"),
        *("mixed", "form", "length right / wrong", "cut"),
    )

    def pair(some: Metrics, one: str, other: str, spec: str) -> str:
        return " / ".join(format(some[key], spec) if key in some else "-" for key in (one, other))

    for name, some in metrics.items():
        table.add_row(
            name,
            f"{some['answering']:.1%}",
            f"{some['avg']:.1%} ± {some['avg_se']:.1%}",
            f"{some[best]:.1%}",
            f"{some['reflecting']:.1%}",
            f"{some['reflecting_problems']:.1%}",
            pair(some, "avg_reflecting", "avg_plain", ".1%"),
            f"{some['mixed_languages']:.1%}",
            f"{some['well_formed']:.1%}",
            pair(some, "length_correct", "length_wrong", ".1f"),
            f"{some['truncated']:.1%}",
        )
    return table
