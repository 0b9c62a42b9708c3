"""Sources of responses to a benchmark: the engine, or a file of stored responses."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from grpo_cli.errors import DataError
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.rollout.collect import Engine, sample_seed
from grpo_cli.types import Completion, Problem, Prompt, Request, Sampling

KINDS = {str: "text", str | int: "text or a whole number", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Question:
    """A request for response number `sample` to a problem of a benchmark."""

    benchmark: str
    problem: Problem
    sample: int
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """The problem's id and the number of the sample."""
        return self.problem.id, self.sample


def questions(benchmark: str, problems: Sequence[Problem], n: int, seed: int) -> list[Question]:
    """`n` questions for each problem, each with its own seed, so that no sample depends on which others are sampled."""
    return [
        Question(benchmark, problem, sample, sample_seed(seed, benchmark, problem.id, sample))
        for problem in problems
        for sample in range(n)
    ]


@dataclass(frozen=True, slots=True)
class Skipped:
    """The reason why there is no response."""

    reason: str


class Responder(Protocol):
    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        """The response to each question, in any order."""


@dataclass(frozen=True)
class EngineResponder:
    """Samples responses. Prompts that leave no room in the model's context are skipped, with the reason."""

    engine: Engine
    prompts: Sequence[Prompt]
    sampling: Sampling
    max_model_len: int

    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        token_ids = {prompt.problem.id: prompt.token_ids for prompt in self.prompts}
        fitting = []
        for question in asked:
            length = len(token_ids[question.problem.id])
            if length < self.max_model_len:
                fitting.append(question)
            else:
                yield question, Skipped(f"the prompt has {length} tokens, and the context {self.max_model_len}")
        requests = [Request(token_ids[question.problem.id], question.seed) for question in fitting]
        for index, completion in self.engine.generate(requests, self.sampling):
            yield fitting[index], completion


class StoredResponder:
    """Looks up responses in a JSONL file with `benchmark`, `id` and `text`, for example a file of samples.

    Optional are `sample` (otherwise the responses to a problem are numbered in the order of the file), `truncated` and
    `num_tokens`. Raises DataError with the line number if the file is invalid.
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
        """The largest number of responses to one problem. Raises DataError if a response matches no problem."""
        known = {problem.id for problem in problems}
        unknown = [id for name, id in self._responses if name == benchmark and id not in known]
        if unknown:
            raise DataError(
                f"{len(unknown)} responses match no problem of {benchmark}, such as {unknown[0]!r}. Give the file of "
                f"their problems, as in benchmark.{benchmark}.path=problems.jsonl."
            )
        counts = [1 + max(samples) for (name, _), samples in self._responses.items() if name == benchmark]
        if not counts:
            raise DataError(f"There are no responses to {benchmark}. Remove it from benchmark=[...].")
        return max(counts)

    def __call__(self, asked: Sequence[Question]) -> Iterator[tuple[Question, Completion | Skipped]]:
        for question in asked:
            row = self._responses[question.benchmark, question.problem.id].get(question.sample)
            if row is None:
                yield question, Skipped("the file has no response with this number")
            else:
                num_tokens = row.get("num_tokens", 0)
                yield question, Completion((0,) * num_tokens, (), row["text"], bool(row.get("truncated", False)))


def _response(row: dict[str, Any]) -> dict[str, Any]:
    """The row, unchanged. Raises ValueError or KeyError if a field is missing or has the wrong type."""
    expected: dict[str, Any] = {"benchmark": str, "id": str | int, "text": str}
    optional: dict[str, Any] = {"sample": int, "num_tokens": int, "truncated": bool}
    for key, kind in {**expected, **{key: optional[key] for key in optional if key in row}}.items():
        value = row[key]
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{key} is {json.dumps(value)[:60]}, and must be {KINDS[kind]}")
        if kind is int and value < 0:
            raise ValueError(f"{key} is {value}, and must be 0 or more")
    return row
