"""The weight of an entropy bonus, which can adapt to a target (Skywork-OR1, arXiv:2505.22312)."""

import json
from collections.abc import Sequence
from math import fsum
from pathlib import Path

from grpo_cli.config.algorithm import EntropyBonusConfig
from grpo_cli.files import write_whole
from grpo_cli.ranks import gather, rank
from grpo_cli.training.batch import TrainingSequence

FILE = "entropy_bonus.json"


class EntropyBonus:
    """With a target, the weight c rises by `change` after an update whose rollout has less entropy, and falls after one
    with more. The bonus has the weight c if the entropy is at most the target, otherwise 0.
    """

    def __init__(self, settings: EntropyBonusConfig) -> None:
        self._settings = settings
        self._weight = settings.weight

    @property
    def is_on(self) -> bool:
        return self._settings.weight > 0 or self._settings.target is not None

    def next_weight(self, sequences: Sequence[TrainingSequence]) -> float:
        """The weight for the update with this rank's sequences; called on all ranks.

        The entropy is estimated from the sampled tokens: minus their mean log-probability.
        """
        target, weight = self._settings.target, self._weight
        if target is None:
            return weight
        logprobs = [logprob for s in sequences for logprob in s.sampler_logprobs or ()]
        total, count = map(fsum, zip(*gather((fsum(logprobs), len(logprobs))), strict=True))
        entropy = -total / max(count, 1)
        change = self._settings.change if entropy < target else -self._settings.change
        self._weight = max(0.0, weight + change)
        return weight if entropy <= target else 0.0

    def save(self, folder: Path) -> None:
        """Write the weight, on rank 0, if it adapts."""
        if self._settings.target is not None and rank() == 0:
            write_whole(folder / FILE, json.dumps({"weight": self._weight}))

    def load(self, folder: Path) -> None:
        """Load what `save` wrote; without it, the weight stays that of the settings."""
        if (folder / FILE).is_file():
            self._weight = json.loads((folder / FILE).read_text(encoding="utf-8"))["weight"]
