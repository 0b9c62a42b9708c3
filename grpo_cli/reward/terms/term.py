"""The base class of reward terms, and the response that they score."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.bounds import number
from grpo_cli.choices import Grader
from grpo_cli.grading import Judgement
from grpo_cli.types import Verdict


@dataclass(frozen=True, slots=True)
class Response:
    """A graded completion. `text` starts with the template's response prefix; lengths are in tokens."""

    text: str
    num_tokens: int
    max_new_tokens: int
    judgement: Judgement

    @property
    def is_correct(self) -> bool:
        return self.judgement.verdict == Verdict.correct


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the reward, which is the sum of weight times value over all terms.

    A subclass in this package with a `name` is a built-in term of that name: `reward.terms.<name>`.
    """

    name: ClassVar[str] = ""

    weight: float = number(1.0)
    """Factor of the term's value in the reward."""
    from_step: int = number(0, at_least=0)
    """First training step at which the term counts."""
    to_step: int = number(0, at_least=0)
    """Last training step at which the term counts; 0: no end."""

    def faults(self, key: str) -> Iterator[str]:
        if self.to_step and self.from_step > self.to_step:
            yield (
                f"{key}to_step={self.to_step} is before {key}from_step={self.from_step}. Set {key}to_step=0 for no end."
            )

    def counts_at(self, step: int | None) -> bool:
        """Whether the term counts at a training step. In an evaluation (None), only terms without a step range count.

        >>> late = Term(from_step=1301, to_step=1700)
        >>> [late.counts_at(step) for step in (1300, 1301, 1700, 1701, None)]
        [False, True, True, False, False]
        """
        if step is None:
            return not (self.from_step or self.to_step)
        return self.from_step <= step <= (self.to_step or step)

    def applies_to(self, grader: Grader) -> bool:
        """Whether the term can score responses to problems with this grader."""
        return True

    def value(self, response: Response) -> float:
        """The term's value for a response, without its weight."""
        raise NotImplementedError(f"{type(self).__name__} is computed in the background")
