"""`optimizer.*`: AdamW and its learning rate."""

from dataclasses import dataclass

from grpo_cli.bounds import number
from grpo_cli.choices import Schedule


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = number(1e-6, at_least=0, at_most=1)
    """Learning rate."""
    betas: tuple[float, float] = number((0.9, 0.95), at_least=0, below=1, count=2)
    """Decay rates of the first and second moments."""
    eps: float = number(1e-8, above=0, at_most=1)
    """Added to the denominator of an update."""
    weight_decay: float = number(0.0, at_least=0)
    """Decoupled weight decay."""
    max_grad_norm: float = number(1.0, above=0)
    """Gradients are clipped to this norm."""
    schedule: Schedule = Schedule.constant
    """How the learning rate changes after warm-up."""
    warmup_steps: int = number(0, at_least=0)
    """Optimizer steps over which the rate rises from 0."""
