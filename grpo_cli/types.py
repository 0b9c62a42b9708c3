"""The values that are passed from stage to stage.

Each stage takes values and returns a new one; it never changes an earlier one. Does not import torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Columns(Mapping[str, Any]):
    """The values of a row by column. Cannot be changed."""

    _values: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Any:
        if column not in self._values:
            raise KeyError(f"{column} is not among data.columns.extra={list(self._values)}")
        return self._values[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and how its responses are graded.

    `answer` is the gold answer. It may be empty for a general prompt, which only a reward model can score. `grader` is
    the name of a Grader. `extra` holds the other columns of its row that `data.columns.extra` names; only reward
    functions read it, so it is not part of what identifies a problem in a checkpoint (its repr).
    """

    id: str
    text: str
    answer: str
    grader: str = "math"
    extra: Mapping[str, Any] = field(default_factory=Columns, repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the model sees it: in its template, as text and as token ids."""

    problem: Problem
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are sampled. Temperature 0 is greedy. With `top_k` above 0, completions have a `support`."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    top_k: int = 0  # 0: all
    segment_tokens: int = 0  # cut a response after so many new tokens, to be continued later; 0: only at the limit


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response.

    `logprobs` are the sampler's, one per token id, at the sampling temperature. `truncated` means that the response was
    cut at the token limit. `support` has, for each token, the ids that it was sampled from (rollout/support.py).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    truncated: bool
    support: tuple[bytes, ...] | None = None  # None: the whole vocabulary
    ages: tuple[tuple[int, int], ...] = ()  # (number of tokens, updates since their weights), in order; none: all 0

    @property
    def token_ages(self) -> tuple[int, ...]:
        """The age of each token; none if `ages` has none."""
        return tuple(age for num_tokens, age in self.ages for _ in range(num_tokens))


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to sample one response for."""

    token_ids: tuple[int, ...]
    seed: int  # of this response alone: it repeats, whatever else is sampled at the same time
    prefix: Completion | None = None  # the start of the response, if it was cut after a segment


class Verdict(StrEnum):
    """The grader's result for an answer. Only `correct` earns a reward; `unjudged` is neither right nor wrong."""

    correct = "correct"
    wrong = "wrong"
    unparsable = "unparsable"  # there is no answer, or the grader cannot read it
    timeout = "timeout"  # the grader was stopped: it needed too much time or memory
    unjudged = "unjudged"  # a response to a general prompt: no rule can tell


BY_RULE = tuple(verdict for verdict in Verdict if verdict is not Verdict.unjudged)  # the verdicts of graders


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of a completion: each term before weighting, and the weighted sum, nan if no term applies."""

    total: float
    terms: Mapping[str, float]
    verdict: Verdict
    extracted: str | None  # the answer that was graded


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The completions of one prompt, each with its score."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]
