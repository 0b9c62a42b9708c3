"""Complete series of samples: those already stored are read, the missing ones are sampled, judged and stored."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from grpo_cli.choices import AnswerMarker
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.sampling import EvalConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.templates import render
from grpo_cli.evaluation.responses import EngineResponder, Question, Responder, Skipped, questions
from grpo_cli.evaluation.samples import Sample, SampleStore
from grpo_cli.model import BaseModel
from grpo_cli.progress import progress, stage
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.reward.terms.format import format_reward
from grpo_cli.types import Completion, Problem, Sampling, Score, Verdict


@dataclass(frozen=True)
class Series:
    """Problems, each to be answered `n` times under a template; the samples are stored in `<name>.jsonl`."""

    name: str
    problems: Sequence[Problem]
    template: TemplateConfig
    n: int


@dataclass(frozen=True)
class Completed:
    """All samples of a series, ordered by problem and number.

    `speed` covers the new samples on all ranks: `samples`, `seconds` and `tokens_per_s`; empty if there are none.
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
    """All samples of every series. Called on all ranks, which share the work.

    Each sample has its own seed, so an interrupted series ends with the same samples as an uninterrupted one.
    `responders` is called only if samples are missing.
    """
    stores = {series.name: SampleStore(folder, series.name) for series in all_series}
    asked = {series.name: questions(series.name, series.problems, series.n, seed) for series in all_series}
    stored = {name: store.load() for name, store in stores.items()}
    missing = {name: [question for question in asked[name] if question.key not in stored[name]] for name in asked}
    gather(None)  # every rank has read what is stored before any rank adds to it

    respond: Mapping[str, Responder] = responders() if any(missing.values()) else {}
    speed = {}
    for series in all_series:
        name = series.name
        kept = len(asked[name]) - len(missing[name])
        console.print(f"{name}: {len(missing[name])} samples" + f", {kept} kept" * (kept > 0))
        new = judged(missing[name][rank() :: world_size()], respond.get(name), rewards[name])
        samples = (response.sample(series.template) for response in new)
        speed[name] = _store(stores[name], samples, len(missing[name]), console)

    completed = {name: Completed(_in_order(store, asked[name]), speed[name]) for name, store in stores.items()}
    gather(None)  # every rank has read all samples before their files are merged
    if rank() == 0:
        for name, store in stores.items():
            store.merge([question.key for question in asked[name]])
    return completed


def stored_samples(series: Series, folder: Path, seed: int) -> list[Sample]:
    """The samples of a series that `complete` has finished, ordered by problem and number."""
    return _in_order(SampleStore(folder, series.name), questions(series.name, series.problems, series.n, seed))


def _in_order(store: SampleStore, asked: Sequence[Question]) -> list[Sample]:
    stored = store.load()
    return [stored[question.key] for question in asked]


def _store(store: SampleStore, new: Iterator[Sample], total: int, console: Console) -> dict[str, float]:
    """Store this rank's samples as they arrive; returns the speed of all ranks together."""
    if total == 0:
        return {}
    num_tokens = 0

    def counted() -> Iterator[Sample]:
        nonlocal num_tokens
        with progress(console, store.path.stem, len(range(rank(), total, world_size()))) as count:
            for sample in new:
                num_tokens += sample.num_tokens
                yield sample
                count()

    started = time.perf_counter()
    store.append(counted(), rank())
    seconds = max(gather(time.perf_counter() - started))
    return {"samples": total, "seconds": seconds, "tokens_per_s": sum(gather(num_tokens)) / seconds}


@dataclass(frozen=True, slots=True)
class Judged:
    """A response to a question, with its score; `skipped` says why nothing was sampled."""

    question: Question
    completion: Completion
    score: Score
    skipped: str = ""

    def sample(self, template: TemplateConfig) -> Sample:
        """The response as a sample; `template` says which format is asked for."""
        if template.answer == AnswerMarker.answer_tag:
            well_formed = format_reward(template.response_prefix + self.completion.text) == 1
        else:
            well_formed = self.score.verdict is not Verdict.unparsable
        return Sample(
            benchmark=self.question.benchmark,
            id=self.question.problem.id,
            sample=self.question.sample,
            seed=self.question.seed,
            text=self.completion.text,
            extracted=self.score.extracted,
            verdict=self.score.verdict,
            num_tokens=len(self.completion.token_ids),
            truncated=self.completion.truncated,
            well_formed=well_formed,
            skipped=self.skipped,
        )


def judged(asked: Sequence[Question], respond: Responder | None, reward: Reward) -> Iterator[Judged]:
    """The response to each question as soon as it is judged, in any order; none if there is no `respond`."""
    if respond is None:
        return
    waiting: deque[tuple[Question, Completion, Future[Score]]] = deque()
    for question, response in respond(asked):
        if isinstance(response, Skipped):
            nothing, wrong = Completion((), (), "", truncated=False), Score(0.0, {}, Verdict.unparsable, None)
            yield Judged(question, nothing, wrong, skipped=response.reason)
            continue
        waiting.append((question, response, reward.submit(question.problem, response)))
        while waiting and waiting[0][2].done():
            question, completion, score = waiting.popleft()
            yield Judged(question, completion, score.result())
    for question, completion, score in waiting:
        yield Judged(question, completion, score.result())


def engine_responders(
    all_series: Sequence[Series], model: BaseModel, sampling: EvalConfig, cluster: ClusterConfig, console: Console
) -> dict[str, Responder]:
    """A responder for each series, all with the same engine, whose context has room for the longest prompt."""
    prompts = {series.name: render(series.problems, series.template, model.tokenizer) for series in all_series}
    longest = max(len(prompt.token_ids) for of_series in prompts.values() for prompt in of_series)
    max_model_len = min(model.max_model_len, longest + sampling.max_new_tokens)
    with stage(console, "starting vLLM"):
        from grpo_cli.rollout.vllm_engine import RolloutEngine

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
