"""A penalty for repeated word sequences."""

from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.bounds import number
from grpo_cli.reward.terms.term import Response, Term


@dataclass(frozen=True, kw_only=True)
class RepetitionTerm(Term):
    """Minus the share of word n-grams that repeat an earlier one (open-r1)."""

    name: ClassVar[str] = "repetition"

    ngram_size: int = number(3, at_least=1)
    """Words in an n-gram."""

    def value(self, response: Response) -> float:
        return repetition_penalty(response.text, self.ngram_size)


def repetition_penalty(text: str, ngram_size: int) -> float:
    """Minus the share of the text's word n-grams that repeat an earlier one (open-r1; arXiv:2502.03373, appendix).

    >>> repetition_penalty("wait wait wait wait", ngram_size=2)
    -0.6666666666666667
    """
    words = text.lower().split()
    ngrams = list(zip(*(words[start:] for start in range(ngram_size)), strict=False))
    return len(set(ngrams)) / len(ngrams) - 1 if ngrams else 0.0
