"""The shape of a model, read from its config.json, and its number of parameters."""

from pathlib import Path

from grpo_cli.config.model import LoraConfig, ModelConfig, ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.data import make_zero
from grpo_cli.errors import ConfigError

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


def find_shape(model: ModelConfig, key: str = "model.path") -> ShapeConfig:
    """The shape in the settings; otherwise that of the model's folder or of the Hub's cache.

    Raises ConfigError, which names the setting `key`, if there is none.
    """
    if model.shape is not None:
        return model.shape
    _, builtin, name = model.path.rpartition("builtin:")
    path = make_zero.base_model_dir(name) if builtin else Path(model.path).expanduser()
    try:
        return read_shape(path if path.is_dir() else model.path, model.revision)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not path.is_dir():
            raise ConfigError(
                f"{key}={model.path}: the shape of this model is unknown, and `r1zero plan` downloads nothing. "
                f"Run `hf download {model.path} config.json` once, or set {key} to the folder of the model."
            ) from None
        raise ConfigError(
            f"{key}={model.path}: config.json does not describe a shape that can be planned ({error}). Set "
            "model.shape in a file in conf/model, as qwen2_5_math_7b.yaml does."
        ) from error


def find_reference_shape(config: TrainConfig, shape: ShapeConfig) -> ShapeConfig | None:
    """The shape of the frozen reference; None if there is none, or if it is the policy of `shape` without its adapters.

    Raises ConfigError if the shape of a teacher is unknown.
    """
    if config.algorithm.beta == 0:
        return None
    if (teacher := config.algorithm.reference.path) is not None:
        return find_shape(ModelConfig(name="teacher", path=teacher), "algorithm.reference.path")
    return shape if config.model.lora.rank == 0 else None


def attention_widths(shape: ShapeConfig) -> tuple[int, int]:
    """(A, K): the total widths of all query heads and of all key heads."""
    return shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim


def num_parameters(shape: ShapeConfig) -> int:
    """The number of parameters: exact for a Qwen2; less than 1 % off for a Llama, which has other biases."""
    hidden, (queries, keys) = shape.hidden_size, attention_widths(shape)
    biases_and_norms = queries + 2 * keys + 2 * hidden  # biases of q, k and v
    embeddings = shape.vocab_size * hidden * (1 if shape.tied_embeddings else 2)
    return shape.num_layers * (matrix_weights(shape) + biases_and_norms) + embeddings + hidden


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
