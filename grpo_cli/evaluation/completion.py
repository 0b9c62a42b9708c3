"""The samples of several series: those that are missing are made and kept, the others read back."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.sampling import EvalConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.templates import render
from grpo_cli.evaluation.benchmark import judged_samples
from grpo_cli.evaluation.responses import EngineResponder, Question, Responder, questions
from grpo_cli.evaluation.samples import Sample
from grpo_cli.evaluation.store import SampleStore
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Problem, Sampling


@dataclass(frozen=True)
class Series:
    """Problems to be answered `n` times each under a template; its samples are in `<name>.jsonl`."""

    name: str
    problems: Sequence[Problem]
    template: TemplateConfig
    n: int


@dataclass(frozen=True)
class Completed:
    """All samples of a series, by problem and number.

    `speed` is of those that were made now: `samples`, `seconds`, and `tokens_per_s` of all ranks; empty for none.
    """

    samples: list[Sample]
    speed: Mapping[str, float]


def complete(
    all_series: Sequence[Series],
    responders: Callable[[], Mapping[str, Responder]],
    rewards: Mapping[str, Reward],
    folder: Path,
    seed: int,
    console: Console,
) -> dict[str, Completed]:
    """Every series with all its samples; called on all ranks, which share the work.

    A sample depends on its own seed alone, so that a series which was interrupted ends as one that was not.
    `responders` is called only where something is missing.
    """
    stores = {series.name: SampleStore(folder, series.name) for series in all_series}
    asked = {series.name: questions(series.name, series.problems, series.n, seed) for series in all_series}
    missing = {name: _missing(asked[name], stores[name].load()) for name in asked}
    gather(None)  # every rank has read what is done before one adds to it

    respond = responders() if any(missing.values()) else {}
    speed = {}
    for series in all_series:
        name = series.name
        kept = len(asked[name]) - len(missing[name])
        console.print(f"{name}: {len(missing[name])} samples" + f", {kept} kept" * (kept > 0), highlight=False)
        made = judged_samples(missing[name][rank() :: world_size()], respond.get(name), rewards[name], series.template)
        speed[name] = _keep(stores[name], made, len(missing[name]), console)

    completed = {}
    for name, store in stores.items():
        completed[name] = Completed(_in_order(store, asked[name]), speed[name])
    gather(None)  # every rank has read them all before they are moved
    if rank() == 0:
        for name, store in stores.items():
            store.conclude([(question.problem.id, question.sample) for question in asked[name]])
    return completed


def stored_samples(series: Series, folder: Path, seed: int) -> list[Sample]:
    """The samples of a series that `complete` has completed, by problem and number."""
    return _in_order(SampleStore(folder, series.name), questions(series.name, series.problems, series.n, seed))


def _in_order(store: SampleStore, asked: Sequence[Question]) -> list[Sample]:
    done = store.load()
    return [done[question.problem.id, question.sample] for question in asked]


def _missing(asked: Sequence[Question], done: Mapping[tuple[str, int], Sample]) -> list[Question]:
    return [question for question in asked if (question.problem.id, question.sample) not in done]


def _keep(store: SampleStore, made: Iterator[Sample], total: int, console: Console) -> dict[str, float]:
    """Store this rank's samples as they come; how fast all ranks were."""
    if total == 0:
        return {}
    num_tokens = 0

    def counted() -> Iterator[Sample]:
        nonlocal num_tokens
        label = store.path.stem
        quiet = not console.is_terminal
        for sample in track(made, label, total / world_size(), console=console, transient=True, disable=quiet):
            num_tokens += sample.num_tokens
            yield sample

    started = time.perf_counter()
    store.append(counted(), rank())
    seconds = max(gather(time.perf_counter() - started))
    return {"samples": total, "seconds": seconds, "tokens_per_s": sum(gather(num_tokens)) / seconds}


def engine_responders(
    all_series: Sequence[Series], model: BaseModel, sampling: EvalConfig, cluster: ClusterConfig, console: Console
) -> dict[str, Responder]:
    """One engine, to be asked for each series; its context is as long as the longest prompt needs."""
    from grpo_cli.rollout.vllm_engine import RolloutEngine

    console.print("loading the model into vLLM")
    prompts = {series.name: render(series.problems, series.template, model.tokenizer) for series in all_series}
    longest = max(len(prompt.token_ids) for some in prompts.values() for prompt in some)
    max_model_len = min(model.max_model_len, longest + sampling.max_new_tokens)
    engine = RolloutEngine(replace(model, max_model_len=max_model_len), cluster)
    return {
        series.name: EngineResponder(
            engine,
            prompts[series.name],
            Sampling(sampling.temperature, sampling.top_p, sampling.max_new_tokens, tuple(series.template.stop)),
            max_model_len,
        )
        for series in all_series
    }
