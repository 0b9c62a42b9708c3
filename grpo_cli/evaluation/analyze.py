"""`r1zero analyze` on a rank: samples of a base model under each template, then rank 0 reports what it can do."""

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from grpo_cli.config.schema import AnalyzeTask, TemplateConfig
from grpo_cli.data.problems import checkable, load_problems
from grpo_cli.evaluation.base_model import answers_question, base_model_metrics, teaching_verdict
from grpo_cli.evaluation.completion import Completed, Series, complete, engine_responders
from grpo_cli.evaluation.judge import load_judge
from grpo_cli.evaluation.measures import right_of_each
from grpo_cli.evaluation.provenance import data_source, model_source, versions
from grpo_cli.evaluation.report import figures_table, log_to_wandb, plot_bars, report_console
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.ranks import gather, rank, start_ranks, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Problem

Metrics = Mapping[str, float]


def analyze(config: AnalyzeTask, terminal: TextIO) -> None:
    """Make what is missing of the samples in `<run.dir>/analyze/`; rank 0 then writes `<run.dir>/analyze.json`."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    problems = _drawn(checkable(load_problems(config.data, config.data.name, "data")), config)
    templates = config.templates or {"default": config.template}
    model = load_base_model(config.model)
    all_series = [Series(name, problems, template, config.eval.n) for name, template in templates.items()]
    with ExitStack() as stack:
        rewards = {
            name: stack.enter_context(
                Reward(config.reward, template, config.eval.max_new_tokens, config.cluster.device)
            )
            for name, template in templates.items()
        }
        completed = complete(
            all_series,
            lambda: engine_responders(all_series, model, config.eval, config.cluster, console),
            rewards,
            Path(config.run.dir) / "analyze",
            config.seed,
            console,
        )
    answers = _answers(completed, problems, templates, config, console)
    if rank() == 0:
        _report(completed, answers, problems, templates, model, config, console)
    gather(None)  # no rank ends while another is still at work


def _drawn(problems: Sequence[Problem], config: AnalyzeTask) -> list[Problem]:
    count = config.analyze.num_problems or len(problems)
    return random.Random(config.seed).sample(problems, min(count, len(problems)))


def _answers(
    completed: Mapping[str, Completed],
    problems: Sequence[Problem],
    templates: Mapping[str, TemplateConfig],
    config: AnalyzeTask,
    console: Console,
) -> dict[str, list[bool]]:
    """Whether each sample answers its question, by rule or by the judging model, whose work all ranks share."""
    if config.analyze.judge is None:
        return {
            name: [
                answers_question(sample, template.answer, template.response_prefix)
                for sample in completed[name].samples
            ]
            for name, template in templates.items()
        }
    judge = load_judge(config.analyze.judge, config.cluster, console)
    answers = {}
    for name, series in completed.items():
        answers[name] = [False] * len(series.samples)
        for of_rank, judged in enumerate(gather(judge(series.samples[rank() :: world_size()], problems))):
            answers[name][of_rank :: world_size()] = judged
    return answers


def _report(
    completed: Mapping[str, Completed],
    answers: Mapping[str, Sequence[bool]],
    problems: Sequence[Problem],
    templates: Mapping[str, TemplateConfig],
    model: BaseModel,
    config: AnalyzeTask,
    console: Console,
) -> None:
    run_dir = Path(config.run.dir)
    metrics = {}
    for name, series in completed.items():
        metrics[name] = base_model_metrics(series.samples, answers[name], config.analyze.group_sizes)
        rates = right_of_each(series.samples)
        lines = [json.dumps({"id": id, "pass_rate": c / n, "n": n}) + "\n" for id, (n, c) in rates.items()]
        (run_dir / f"pass_rates_{name}.jsonl").write_text("".join(lines))

    settings = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    results = {
        "templates": metrics,
        "model": settings["model"] | {"checkpoint": config.checkpoint} | model_source(model.folder),
        "data": data_source(config.data, problems),
        "sampling": settings["eval"] | {"seed": config.seed},
        "template_texts": {name: template.text for name, template in templates.items()},
        "engine": {key: settings["cluster"][key] for key in ("device", "dtype")},
        "versions": versions(),
    }
    (run_dir / "analyze.json").write_text(json.dumps(results, indent=2) + "\n")
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
