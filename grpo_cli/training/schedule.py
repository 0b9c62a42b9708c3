"""The learning-rate schedule."""

import math
from collections.abc import Callable

from grpo_cli.choices import Schedule
from grpo_cli.config.optimizer import OptimizerConfig


def lr_factor(optimizer: OptimizerConfig, total_steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each optimizer step: linear warm-up, then constant or a half cosine to 0."""

    def factor(step: int) -> float:
        if step < optimizer.warmup_steps:
            return (step + 1) / optimizer.warmup_steps
        if optimizer.schedule == Schedule.constant:
            return 1.0
        progress = (step - optimizer.warmup_steps) / max(1, total_steps - optimizer.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor
