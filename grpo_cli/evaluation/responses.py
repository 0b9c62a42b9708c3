"""Where the responses to a benchmark come from: the engine, or a file of stored ones."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grpo_cli.errors import DataError
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.rollout.collect import sample_seed
from grpo_cli.types import Completion, Problem, Prompt, Request, Sampling

if TYPE_CHECKING:
    from grpo_cli.rollout.vllm_engine import RolloutEngine

KINDS = {str: "text", str | int: "text or a whole number", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Question:
    """One response that is asked for: the `sample`-th to a problem of a benchmark."""

    benchmark: str
    problem: Problem
    sample: int
    seed: int


def questions(benchmark: str, problems: Sequence[Problem], n: int, seed: int) -> list[Question]:
    """`n` for each problem, each with a seed of its own, so that a sample does not depend on which others are made."""
    return [
        Question(benchmark, problem, sample, sample_seed(seed, benchmark, problem.id, sample))
        for problem in problems
        for sample in range(n)
    ]


@dataclass(frozen=True, slots=True)
class Skipped:
    """No response, and why."""

    reason: str


class Responder(Protocol):
    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        """The response to each question, in no certain order."""


class EngineResponder:
    """Samples responses. A prompt that fills the model's context is skipped, with the reason."""

    def __init__(
        self, engine: "RolloutEngine", prompts: Sequence[Prompt], sampling: Sampling, max_model_len: int
    ) -> None:
        self._engine = engine
        self._prompts = {prompt.problem.id: prompt for prompt in prompts}
        self._sampling = sampling
        self._max_model_len = max_model_len

    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        fitting = []
        for question in asked:
            prompt_len = len(self._prompts[question.problem.id].token_ids)
            if prompt_len < self._max_model_len:
                fitting.append(question)
            else:
                reason = f"the prompt has {prompt_len} tokens, and the context {self._max_model_len}"
                yield question, Skipped(reason)
        requests = [Request(self._prompts[question.problem.id].token_ids, question.seed) for question in fitting]
        for index, completion in self._engine.generate(requests, self._sampling):
            yield fitting[index], completion


class StoredResponder:
    """Looks responses up in a JSONL file of `benchmark`, `id` and `text`; what a file of samples has, for instance.

    Optional are `sample` (else those of a problem are numbered as they come), `truncated` and `num_tokens`. Raises
    DataError, which names the line, where the file is none such.
    """

    def __init__(self, path: Path) -> None:
        self._responses: dict[tuple[str, str], dict[int, dict]] = defaultdict(dict)
        rows = read_jsonl(path, _response, "A response is a JSON object with benchmark, id (of the problem) and text.")
        keys = {}
        for number, row in rows.items():
            benchmark, id = row["benchmark"], str(row["id"])
            samples = self._responses[benchmark, id]
            sample = row.get("sample", len(samples))
            keys[number] = f"{benchmark}, {id}, sample {sample}"
            samples[sample] = row
        check_unique(path, keys, "the response")

    def num_samples(self, benchmark: str, problems: Sequence[Problem]) -> int:
        """How many responses a problem has, at most. Raises DataError for a response to no problem."""
        known = {problem.id for problem in problems}
        unknown = [id for name, id in self._responses if name == benchmark and id not in known]
        if unknown:
            raise DataError(
                f"{len(unknown)} responses are to no problem of {benchmark}, such as {unknown[0]!r}. Give the file of "
                f"problems that they are to, as in benchmark.{benchmark}.path=problems.jsonl."
            )
        counts = [1 + max(samples) for (name, _), samples in self._responses.items() if name == benchmark]
        if not counts:
            raise DataError(f"There is no response to {benchmark}. Leave it out of benchmark=[...].")
        return max(counts)

    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        for question in asked:
            row = self._responses[question.benchmark, question.problem.id].get(question.sample)
            if row is None:
                yield question, Skipped("the file has no such response")
            else:
                num_tokens = row.get("num_tokens", 0)
                yield question, Completion((0,) * num_tokens, (), row["text"], bool(row.get("truncated", False)))


def _response(row: dict[str, Any]) -> dict[str, Any]:
    """The row, unchanged. Raises ValueError or KeyError where a field is missing or of the wrong type."""
    expected = {"benchmark": str, "id": str | int, "text": str}
    optional = {"sample": int, "num_tokens": int, "truncated": bool}
    for key, kind in {**expected, **{key: optional[key] for key in optional if key in row}}.items():
        value = row[key]
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{key} is {json.dumps(value)[:60]}, and must be {KINDS[kind]}")
        if kind is int and value < 0:
            raise ValueError(f"{key} is {value}, and must be 0 or more")
    return row
