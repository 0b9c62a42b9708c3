"""The shape of a model, read from its config.json, and its number of parameters."""

from pathlib import Path

from grpo_cli.config.model import LoraConfig, ShapeConfig

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # each token uses only some of such weights


def read_shape(path: str | Path, revision: str | None = None) -> ShapeConfig:
    """The shape of the model in a folder, in a config.json, or under a Hub id in the cache; nothing is downloaded.

    Raises OSError if there is none, ValueError if it cannot be planned, as for a mixture of experts.
    """
    from transformers import AutoConfig

    loaded = AutoConfig.from_pretrained(path, revision=revision, local_files_only=True, trust_remote_code=False)
    config = loaded.get_text_config()
    if experts := next((key for key in EXPERTS if getattr(config, key, None)), None):
        raise ValueError(f"{experts}={getattr(config, experts)}: a mixture of experts")
    try:
        num_heads = config.num_attention_heads
        return ShapeConfig(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=num_heads,
            num_kv_heads=getattr(config, "num_key_value_heads", None) or num_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // num_heads,
            vocab_size=config.vocab_size,
            tied_embeddings=config.tie_word_embeddings,
            max_model_len=config.max_position_embeddings,
        )
    except AttributeError as error:  # another kind of model
        raise ValueError(str(error)) from error


def attention_widths(shape: ShapeConfig) -> tuple[int, int]:
    """(A, K): the total widths of all query heads and of all key heads."""
    return shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim


def num_parameters(shape: ShapeConfig) -> int:
    """The number of parameters: exact for a Qwen2; less than 1 % off for a Llama, which has other biases."""
    hidden, (queries, keys) = shape.hidden_size, attention_widths(shape)
    biases_and_norms = queries + 2 * keys + 2 * hidden  # biases of q, k and v
    embeddings = shape.vocab_size * hidden * (1 if shape.tied_embeddings else 2)
    return shape.num_layers * (matrix_weights(shape) + biases_and_norms) + embeddings + hidden


def num_critic_parameters(shape: ShapeConfig) -> int:
    """The number of parameters of a critic of this shape: one output and its bias instead of the vocabulary's."""
    output = 0 if shape.tied_embeddings else shape.vocab_size * shape.hidden_size
    return num_parameters(shape) - output + shape.hidden_size + 1


def matrix_weights(shape: ShapeConfig) -> int:
    """The weights of one layer that each token is multiplied with."""
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
