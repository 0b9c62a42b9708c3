"""Slow terms, which `reward/background.py` and `reward/model.py` compute next to generation."""

from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.bounds import number
from grpo_cli.choices import Grader, ScoredPrompts
from grpo_cli.reward.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class ModelTerm(Term):
    """The score of a reward model: a Hugging Face sequence classifier with one output."""

    name: ClassVar[str] = "model"

    path: str
    """A Hub id or a folder."""
    on: ScoredPrompts = ScoredPrompts.general
    """Which prompts' responses it scores."""
    device: str = "auto"
    """A torch device name, such as cpu; auto: the device of the cluster (each rank uses its own GPU)."""
    batch_size: int = number(8, at_least=1)
    """Responses in one forward pass."""
    max_tokens: int = number(4096, at_least=1)
    """Longer texts are truncated to this number of tokens."""

    def applies_to(self, grader: Grader) -> bool:
        return grader == Grader.model or self.on == ScoredPrompts.all


@dataclass(frozen=True, kw_only=True)
class FunctionTerm(Term):
    """Your own function of (completion, problem) that returns a float.

    With `batch`, a function of two lists of equal length, (completions, problems), that returns a list of floats. A
    function with a parameter named prompts, completions or completion_ids is called as TRL calls it.
    """

    function: str
    """Where the function is: my_rewards.py:my_reward or my_package.my_module:my_reward."""
    batch: bool = False
    """Call the function once with all waiting responses."""
