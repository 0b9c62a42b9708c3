"""`critic.*`: the network that estimates rewards to come, for algorithm.advantage.kind=gae."""

from collections.abc import Iterator
from dataclasses import dataclass

from grpo_cli.bounds import number
from grpo_cli.config.model import model_folder_faults


@dataclass
class CriticConfig:
    """The critic. Its optimizer has the settings of optimizer.*, but a different learning rate."""

    path: str | None = None
    """The model that it starts from, a Hub id or a folder with the same tokenizer; the base model if not set."""
    lr: float | None = number(None, at_least=0, at_most=1)
    """Learning rate; ten times optimizer.lr if not set."""
    warmup_steps: int = number(0, at_least=0)
    """Steps at the start of the run in which only the critic learns."""
    value_clip: float | None = number(0.5, above=0)
    """A value gains nothing from moving further than this within one rollout; null: no limit."""

    def faults(self, key: str) -> Iterator[str]:
        if self.path is not None:
            yield from model_folder_faults(f"{key}path", self.path)
