"""Whether the answer is correct."""

from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.choices import AnswerMarker, Grader
from grpo_cli.reward.terms.term import Response, Term


@dataclass(frozen=True, kw_only=True)
class AccuracyTerm(Term):
    """1 for a correct answer, otherwise 0. A truncated response has no answer."""

    name: ClassVar[str] = "accuracy"

    marker: AnswerMarker | None = None
    """How to find the answer; if not set, by the marker of the template."""

    def applies_to(self, grader: Grader) -> bool:
        return grader != Grader.model

    def value(self, response: Response) -> float:
        return float(response.is_correct)
