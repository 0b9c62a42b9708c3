"""`model.*`: which model, and how much of it is trained."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from grpo_cli.bounds import number


@dataclass
class LoraConfig:
    """Low-rank adapters (arXiv:2106.09685). Only they are trained; the reference is the model without them."""

    rank: int = number(0, at_least=0, note="0: every weight is trained")
    """Rank of the adapters; 0: no adapters, every weight is trained."""
    alpha: float = number(32.0, above=0)
    """The adapters' product is scaled by alpha / rank."""
    target_modules: list[str] = field(default_factory=list)
    """Layers that get adapters, such as [q_proj,v_proj]; empty: all linear layers."""


@dataclass
class ShapeConfig:
    """The numbers of config.json that planning needs, for a model that is not in the Hub's cache."""

    num_layers: int = number(MISSING, at_least=1)
    """Number of transformer layers."""
    hidden_size: int = number(MISSING, at_least=1)
    """Width of the residual stream."""
    intermediate_size: int = number(MISSING, at_least=1)
    """Width of the feed-forward layers."""
    num_heads: int = number(MISSING, at_least=1)
    """Attention heads."""
    num_kv_heads: int = number(MISSING, at_least=1)
    """Key and value heads."""
    head_dim: int = number(MISSING, at_least=1)
    """Width of one head."""
    vocab_size: int = number(MISSING, at_least=1)
    """Entries of the vocabulary."""
    tied_embeddings: bool = False
    """Whether input and output embeddings are one matrix."""
    max_model_len: int = number(MISSING, at_least=1)
    """Longest sequence, prompt and response together, in tokens."""


@dataclass
class ModelConfig:
    """The model to train or to measure."""

    name: str = MISSING
    """The model's name in tables and plots."""
    path: str = MISSING
    """A Hub id, a folder, or a built-in model such as builtin:make_zero."""
    revision: str | None = None
    """Revision on the Hub; pin it to make a run repeatable."""
    max_model_len: int | None = number(None, at_least=2)
    """Longest sequence, prompt and response together, in tokens; the model's own limit if not set."""
    shape: ShapeConfig | None = None
    """Numbers for planning; read from the model's config.json if not set."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    def faults(self, key: str) -> Iterator[str]:
        yield from model_folder_faults(f"{key}path", self.path)


def model_folder_faults(key: str, path: str) -> Iterator[str]:
    """The fault of a setting that names a folder without a model."""
    if path.startswith((".", "/", "~")) and not (Path(path).expanduser() / "config.json").is_file():
        yield (
            f"{key}={path}: there is no model in that folder (no config.json). Give a folder as transformers saves it, "
            "a Hub id such as Qwen/Qwen2.5-Math-1.5B, or builtin:make_zero."
        )
