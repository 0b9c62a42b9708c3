"""Rewards for how long a response is. Lengths are in tokens."""

import math
from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.bounds import number
from grpo_cli.choices import Grader
from grpo_cli.reward.terms.term import Response, Term


@dataclass(frozen=True, kw_only=True)
class OverlongTerm(Term):
    """0 up to `max_new_tokens - cache_tokens` tokens, then falling linearly to -1 at `max_new_tokens` (DAPO, eq. 13).

    DAPO adds it to an accuracy of -1 or 1. With an accuracy of 0 or 1, use weight 0.5.
    """

    name: ClassVar[str] = "overlong"

    cache_tokens: int = number(0, at_least=0)
    """Number of tokens over which the value falls; 0: a fifth of max_new_tokens, as in DAPO (4,096 of 20,480)."""

    def value(self, response: Response) -> float:
        cache_tokens = self.cache_tokens or max(1, response.max_new_tokens // 5)
        return overlong_penalty(response.num_tokens, response.max_new_tokens, cache_tokens)


@dataclass(frozen=True, kw_only=True)
class LengthPenaltyTerm(Term):
    """Minus the response's number of tokens divided by `max_new_tokens`."""

    name: ClassVar[str] = "length_penalty"

    def value(self, response: Response) -> float:
        return length_penalty(response.num_tokens, response.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class CosineLengthTerm(Term):
    """From `short` to `long` along half a cosine of the length, separately for correct and wrong answers (open-r1)."""

    name: ClassVar[str] = "cosine_length"

    short_correct: float = number(1.0)
    """Value of a correct response of length 0."""
    long_correct: float = number(0.5)
    """Value of a correct response at the token limit."""
    short_wrong: float = number(-1.0)
    """Value of a wrong response of length 0."""
    long_wrong: float = number(-0.5)
    """Value of a wrong response at the token limit."""

    def applies_to(self, grader: Grader) -> bool:
        return grader != Grader.model

    def value(self, response: Response) -> float:
        correct = response.is_correct
        short, long = (self.short_correct, self.long_correct) if correct else (self.short_wrong, self.long_wrong)
        return cosine_length(response.num_tokens, response.max_new_tokens, short, long)


def overlong_penalty(length: int, max_new_tokens: int, cache_tokens: int) -> float:
    """0 until the last `cache_tokens` before the limit, then linearly down to -1 (DAPO, arXiv:2503.14476, eq. 13).

    >>> [overlong_penalty(n, max_new_tokens=100, cache_tokens=20) for n in (80, 90, 100)]
    [0.0, -0.5, -1.0]
    """
    over = length - (max_new_tokens - cache_tokens)
    return -min(max(over / cache_tokens, 0.0), 1.0) + 0.0


def length_penalty(length: int, max_new_tokens: int) -> float:
    """Minus the share of the token limit that was used."""
    return -length / max_new_tokens


def cosine_length(length: int, max_new_tokens: int, short: float, long: float) -> float:
    """From `short` at length 0 to `long` at the limit, along half a cosine (open-r1; arXiv:2502.03373).

    >>> [round(cosine_length(n, max_new_tokens=100, short=1.0, long=0.5), 3) for n in (0, 50, 100)]
    [1.0, 0.75, 0.5]
    """
    progress = min(length / max_new_tokens, 1.0)
    return long + (short - long) * (1 + math.cos(progress * math.pi)) / 2
