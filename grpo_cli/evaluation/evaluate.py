"""`r1zero eval` on a rank: samples what is missing for each benchmark, then rank 0 reports the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from grpo_cli.config.tasks import EvalTask
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.evaluation.chosen_problems import fault_list, ungradable
from grpo_cli.evaluation.completion import Completed, Series, complete, engine_responders
from grpo_cli.evaluation.display import log_to_trackers, plot_curves, report_console, result_table
from grpo_cli.evaluation.majority import answer_equality
from grpo_cli.evaluation.measures import accuracy_curve, macro_average, measure
from grpo_cli.evaluation.provenance import data_source, provenance, results_text
from grpo_cli.evaluation.responses import Responder, StoredResponder
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.progress import stage
from grpo_cli.ranks import gather, rank, start_ranks
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Problem


def evaluate(config: EvalTask, terminal: TextIO) -> None:
    """Add the missing samples to `<run.dir>/eval/`; rank 0 then writes `<run.dir>/eval.json`."""
    start_ranks(config.cluster.device)
    console = report_console(terminal)
    problems = {name: load_benchmark(name, benchmark) for name, benchmark in config.benchmark.items()}
    with stage(console, f"loading {config.rescore or config.model.name}"):
        stored = StoredResponder(Path(config.rescore)) if config.rescore else None
        model = None if stored else load_base_model(config.model)
    all_series = [
        Series(name, asked, config.template, stored.num_samples(name, asked) if stored else config.eval.n)
        for name, asked in problems.items()
    ]

    def responders() -> Mapping[str, Responder]:
        if stored:
            return dict.fromkeys(problems, stored)
        assert model is not None
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
        name: measure(samples[name], answer_equality(benchmark.grader, reward), config.eval.language)
        for name, benchmark in config.benchmark.items()
    }
    curves = {name: accuracy_curve(samples[name]) for name in samples}
    benchmarks: dict[str, dict[str, Any]] = {
        name: {
            **metrics[name],
            "curve": curves[name],
            "skipped_problems": {sample.id: sample.skipped for sample in samples[name] if sample.skipped},
            "ungradable_problems": ungradable(problems[name]),
            "data": data_source(benchmark, problems[name]),
            "speed": completed[name].speed,
        }
        for name, benchmark in config.benchmark.items()
    }
    results = {
        "benchmarks": benchmarks,
        "macro_average": macro_average(list(metrics.values())),
        **provenance(config, model.folder if model else None, "eval", "template", "reward"),
    }
    (run_dir / "eval.json").write_text(results_text(results), encoding="utf-8")
    if max(map(len, curves.values())) > 1:
        plot_curves(curves, run_dir / "eval.png")
    log_to_trackers("eval", metrics, config, console)
    console.print(result_table(metrics))
    for name, results_of in benchmarks.items():
        for key, reason in (
            ("skipped_problems", "count as wrong because nothing was sampled"),
            ("ungradable_problems", "have an answer that cannot be graded and count as wrong"),
        ):
            if faults := results_of[key]:
                console.print(f"{name}: {len(faults)} problems {reason} (listed in eval.json):\n{fault_list(faults)}")
    console.print(f"{run_dir}: eval.json, and each sample in eval/")
