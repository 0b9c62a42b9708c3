"""The shape of a model: where it is written, and how many parameters it has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_cli.config.model import LoraConfig, ShapeConfig

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # a token passes through a part of such weights


def read_shape(file: Path) -> ShapeConfig:
    """The shape that a config.json describes.

    Raises ValueError or KeyError where it does not, as for a mixture of experts.
    """
    return _shape(json.loads(file.read_text(encoding="utf-8")))


def _shape(found: Mapping[str, Any]) -> ShapeConfig:
    if experts := next((key for key in EXPERTS if found.get(key)), None):
        raise ValueError(f"{experts}={found[experts]}: a mixture of experts")
    num_heads = found["num_attention_heads"]
    return ShapeConfig(
        num_layers=found["num_hidden_layers"],
        hidden_size=found["hidden_size"],
        intermediate_size=found["intermediate_size"],
        num_heads=num_heads,
        num_kv_heads=found.get("num_key_value_heads") or num_heads,
        head_dim=found.get("head_dim") or found["hidden_size"] // num_heads,
        vocab_size=found["vocab_size"],
        tied_embeddings=found.get("tie_word_embeddings", False),
        max_model_len=found["max_position_embeddings"],
    )


def attention_widths(shape: ShapeConfig) -> tuple[int, int]:
    """(A, K): the widths of all query heads and of all key heads together."""
    return shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim


def num_parameters(shape: ShapeConfig) -> int:
    """Of a Qwen2 or a Llama; where the latter has other biases, less than a hundredth off."""
    hidden, (queries, keys) = shape.hidden_size, attention_widths(shape)
    biases_and_norms = queries + 2 * keys + 2 * hidden  # the biases are those of q, k and v
    embeddings = shape.vocab_size * hidden * (1 if shape.tied_embeddings else 2)
    return shape.num_layers * (matrix_weights(shape) + biases_and_norms) + embeddings + hidden


def matrix_weights(shape: ShapeConfig) -> int:
    """Of one layer: those that each token is multiplied with."""
    hidden, (queries, keys) = shape.hidden_size, attention_widths(shape)
    return 2 * hidden * (queries + keys) + 3 * hidden * shape.intermediate_size


def num_adapter_parameters(shape: ShapeConfig, lora: LoraConfig) -> int:
    """rank * (inputs + outputs) of each adapted layer (arXiv:2106.09685); 0 without adapters."""
    hidden, (queries, keys) = shape.hidden_size, attention_widths(shape)
    widths = {
        "q_proj": hidden + queries,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": queries + hidden,
        "gate_proj": hidden + shape.intermediate_size,
        "up_proj": hidden + shape.intermediate_size,
        "down_proj": shape.intermediate_size + hidden,
    }
    adapted = {target.rsplit(".", 1)[-1] for target in lora.target_modules} or set(widths)
    return lora.rank * shape.num_layers * sum(width for name, width in widths.items() if name in adapted)
