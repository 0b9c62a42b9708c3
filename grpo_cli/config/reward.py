"""`reward.*`: what a response earns. The terms are in `reward/terms/`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from grpo_cli.bounds import number
from grpo_cli.errors import ConfigError
from grpo_cli.reward.terms import typed_terms


@dataclass
class RewardConfig:
    """The reward, and the processes that grade answers."""

    terms: dict[str, Any] = field(default_factory=dict)
    """The terms, each with a weight and its own options: reward.terms.<name>.weight=..."""
    timeout_s: float = number(2.0, at_least=0.1, at_most=86400)
    """Seconds of CPU time for grading one answer; then its process is replaced."""
    num_workers: int = number(1, at_least=1, at_most=1024)
    """Grading processes on each rank."""
    memory_gib: float = number(2.0, at_least=0.25, at_most=4096)
    """Memory limit of one grading process in GiB."""

    def faults(self, key: str) -> Iterator[str]:
        try:
            terms = typed_terms(self.terms)
        except ConfigError as error:
            yield str(error)
            return
        if not terms:
            yield f"{key}terms is empty. Choose reward=r1, or give a term, as in {key}terms.accuracy.weight=1."
