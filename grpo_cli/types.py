"""The values that flow from stage to stage.

Each stage takes values and returns a new one; none fills in a field of an earlier one. Nothing here needs torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, and how a response to it is judged: `grader` is a name of Grader.

    `answer` is what the grader checks against; of a general prompt, which a reward model grades, it may be empty.
    """

    id: str
    text: str
    answer: str
    grader: str = "math"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the model sees it: after the template, and as token ids."""

    problem: Problem
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are drawn. Temperature 0 is greedy."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    token_ids: tuple[int, ...]
    seed: int  # of this one response, so that it repeats whatever is sampled beside it


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response.

    `logprobs` are the sampler's, one for each token id, at the sampling temperature. `truncated` means that the
    response was cut at the token limit instead of ending by itself.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    truncated: bool


class Verdict(StrEnum):
    """What the grader says of an answer; only `correct` is worth anything; `unjudged` is neither right nor wrong."""

    correct = "correct"
    wrong = "wrong"
    unparsable = "unparsable"  # no answer was found, or it means nothing to the grader
    timeout = "timeout"  # the grader was stopped: too much time or memory
    unjudged = "unjudged"  # a general prompt's response: no rule can tell


BY_RULE = tuple(verdict for verdict in Verdict if verdict is not Verdict.unjudged)  # what a grader can say


@dataclass(frozen=True, slots=True)
class Score:
    """What a completion earned: each term before its weight, and their weighted sum."""

    total: float
    terms: Mapping[str, float]
    verdict: Verdict
    extracted: str | None  # the answer that was judged


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The completions of one prompt, each with its score."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]
