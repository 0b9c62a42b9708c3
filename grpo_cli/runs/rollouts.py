"""The groups of responses that a run keeps: `<run folder>/rollouts/<split>_<step>.jsonl.gz`, one line per group.

The folder also has the files of stored_steps.py. Does not import torch.
"""

import gzip
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text, read_jsonl, with_nan
from grpo_cli.types import Completion, Score, ScoredGroup, Verdict

FOLDER = "rollouts"
# .tmp: the process that wrote it was killed.
FILE_NAME = re.compile(r"(train|heldout|replay)_(\d{6,})\.(?:jsonl\.gz|npz)(\.tmp)?")


class Split(StrEnum):
    heldout = auto()  # greedy responses to the first held-out problems, at each evaluation
    train = auto()  # the first groups of a step


@dataclass(frozen=True, slots=True)
class TokenValues:
    """One value per token of a response. `token_texts` is empty for a token that ends within a character."""

    token_texts: Sequence[str]
    sampler_logprobs: Sequence[float]
    trainer_logprobs: Sequence[float]  # of the weights that sampled
    entropies: Sequence[float]  # in nats
    updated_logprobs: Sequence[float] | None = None  # of the weights after the step's update


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response with its reward; `terms` are the values of the reward's terms before weighting."""

    text: str
    tokens: int
    truncated: bool
    reward: float
    terms: Mapping[str, float]
    extracted: str | None
    verdict: Verdict
    advantage: float | None  # the mean over its tokens, if each has its own; None for a held-out problem
    values: TokenValues | None = None

    @property
    def correct(self) -> bool | None:
        """None if no rule can judge the response."""
        return None if self.verdict is Verdict.unjudged else self.verdict is Verdict.correct


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """A problem and its responses at one step. `grader` says how its answers are judged."""

    step: int
    split: Split
    problem: str  # its id
    question: str
    prompt: str  # the question in its template, as the model sees it
    answer: str
    grader: str
    responses: tuple[KeptResponse, ...]


def kept_group(
    step: int,
    split: Split,
    group: ScoredGroup,
    advantages: Sequence[float] | None = None,
    values: Sequence[TokenValues] | None = None,
) -> KeptGroup:
    """A scored group as it is kept. `advantages` and `values` have one item for each response."""
    problem, nothing = group.prompt.problem, [None] * len(group.scores)
    each = zip(group.completions, group.scores, advantages or nothing, values or nothing, strict=True)
    return KeptGroup(
        step=step,
        split=split,
        problem=problem.id,
        question=problem.text,
        prompt=group.prompt.text,
        answer=problem.answer,
        grader=problem.grader,
        responses=tuple(_kept_response(*response) for response in each),
    )


def _kept_response(
    completion: Completion, score: Score, advantage: float | None, values: TokenValues | None
) -> KeptResponse:
    return KeptResponse(
        text=completion.text,
        tokens=len(completion.token_ids),
        truncated=completion.truncated,
        reward=score.total,
        terms=score.terms,
        extracted=score.extracted,
        verdict=score.verdict,
        advantage=advantage,
        values=values,
    )


def rollout_file(run_dir: Path, split: Split, step: int) -> Path:
    """The file of the groups of one step."""
    return run_dir / FOLDER / f"{split}_{step:06d}.jsonl.gz"


def write_groups(file: Path, groups: Sequence[KeptGroup]) -> None:
    """Write the groups of one step and split. The same groups give the same bytes."""
    file.parent.mkdir(exist_ok=True)
    lines = "".join(json_text(_group_row(group)) + "\n" for group in groups)
    write_whole(file, gzip.compress(lines.encode(), compresslevel=6, mtime=0))


def kept_steps(run_dir: Path, split: Split) -> list[int]:
    """The steps of which groups are kept, in ascending order."""
    names = (FILE_NAME.fullmatch(file.name) for file in (run_dir / FOLDER).glob(f"{split}_*.gz"))
    return sorted(int(name[2]) for name in names if name)


def read_step(run_dir: Path, split: Split, step: int) -> list[KeptGroup]:
    """The groups that are kept of one step; empty if there are none. Raises DataError if the file is damaged."""
    file = rollout_file(run_dir, split, step)
    if not file.is_file():
        return []
    return list(read_jsonl(file, _group, "Remove the file; the rest of the run can be read without it.").values())


def read_groups(run_dir: Path, split: Split) -> Iterator[KeptGroup]:
    """All groups that a run keeps, in the order of the steps. Raises DataError if a file is damaged."""
    for step in kept_steps(run_dir, split):
        yield from read_step(run_dir, split, step)


def remove_after(run_dir: Path, step: int) -> None:
    """Remove the groups of later steps, which a resumed run repeats; at step 0, remove all."""
    for file in (run_dir / FOLDER).glob("*"):
        name = FILE_NAME.fullmatch(file.name)
        if name and (name[3] or step == 0 or int(name[2]) > step):
            file.unlink()


def _group_row(group: KeptGroup) -> dict[str, Any]:
    return _fields(group) | {"responses": [_response_row(response) for response in group.responses]}


def _response_row(response: KeptResponse) -> dict[str, Any]:
    row = _fields(response) | {"correct": response.correct}
    values = row.pop("values")
    return row | (_fields(values) if values else {})


def _fields(value: Any) -> dict[str, Any]:
    """As dataclasses.asdict, which would copy every value of long lists."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _group(row: dict[str, Any]) -> KeptGroup:
    responses = tuple(_response(response) for response in row["responses"])
    return KeptGroup(**(row | {"split": Split(row["split"]), "responses": responses}))


def _response(row: dict[str, Any]) -> KeptResponse:
    values = [row.pop(field.name, None) for field in fields(TokenValues)]
    del row["correct"]  # the verdict says it
    return KeptResponse(
        **row
        | {
            "reward": math.nan if row["reward"] is None else row["reward"],
            "terms": with_nan(row["terms"]),
            "verdict": Verdict(row["verdict"]),
            "values": TokenValues(*values) if values[0] is not None else None,
        }
    )
