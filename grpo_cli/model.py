"""The base model's files, its tokenizer and its longest sequence."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from grpo_cli.config.model import ModelConfig
from grpo_cli.errors import ConfigError
from grpo_cli.model_files import check_length, check_same_tokens, model_folder

# Contractions, spaces, digits, special characters, line breaks, accents and Chinese: everything tokenizers differ in.
SAMPLE_TEXT = "It's  3.14 = \\boxed{12345} <think>\n\n\tnaïve 数学 </think>"


@dataclass(frozen=True)
class BaseModel:
    """A model folder on this machine, as transformers and vLLM load it."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    max_model_len: int  # prompt and response together, in tokens

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token id that can be sampled. The model's embedding may have more rows.

        It can be larger than the number of the tokenizer's entries, since ids can have gaps.
        """
        return 1 + max(*self.tokenizer.get_vocab().values(), *self.end_token_ids)

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """The token ids that end a response: the tokenizer's, and those of generation_config.json, or of config.json if
        that file is missing.
        """
        if (self.folder / "generation_config.json").is_file():
            ends = GenerationConfig.from_pretrained(self.folder).eos_token_id
        else:
            ends = AutoConfig.from_pretrained(self.folder, trust_remote_code=False).get_text_config().eos_token_id
        ids = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        return tuple(sorted(ids - {None}))


def load_base_model(config: ModelConfig, needed_len: int | None = None) -> BaseModel:
    """Find or download the model. `needed_len` is the run's longest sequence, prompt and response together, in tokens;
    without it, sequences can be as long as the model allows.
    """
    folder = model_folder(config)
    _check_weights(folder, config.path)
    try:
        tokenizer = load_tokenizer(folder)
        shape = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        limit, num_rows = shape.max_position_embeddings, shape.vocab_size
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"model.path={config.path}: needs its own Python code to load. r1zero never runs code that comes with "
                "a model. Use a model of a family that transformers supports."
            ) from None
        raise ConfigError(
            f"model.path={config.path}: transformers cannot load it: {str(error).strip()}\nGive a folder with the "
            "config.json and the tokenizer of the model, or copy or download it again."
        ) from error
    if config.max_model_len is not None and config.max_model_len > limit:
        raise ConfigError(f"model.max_model_len={config.max_model_len}: {config.path} reads at most {limit} tokens.")
    check_length(config, limit, needed_len)
    model = BaseModel(folder, tokenizer, config.max_model_len or min(limit, needed_len or limit))
    if model.vocab_size > num_rows:
        raise ConfigError(
            f"model.path={config.path}: the tokenizer's ids go up to {model.vocab_size - 1}, and the model's embedding "
            f"has {num_rows} rows. The tokenizer does not belong to this model: copy both from the same place, or "
            "resize the embedding (`resize_token_embeddings` of transformers) and save the model again."
        )
    if not model.end_token_ids:
        raise ConfigError(
            f"model.path={config.path}: neither the tokenizer nor generation_config.json has a token that ends a "
            "response. Set eos_token in tokenizer_config.json."
        )
    return model


def load_second_model(key: str, path: str, model: BaseModel, needed_len: int | None = None) -> BaseModel:
    """The model of the setting `key`, which gets the token ids of `model`: a teacher or a critic.

    Raises ConfigError if its tokenizer is another one.
    """
    try:
        second = load_base_model(ModelConfig(name=key, path=path), needed_len)
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.path=", f"{key}=")) from error
    check_same_tokens(key, path, second.tokenizer.get_vocab(), model.tokenizer.get_vocab())
    return second


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer exactly as the folder's tokenizer.json defines it.

    For some model types, AutoTokenizer takes only the vocabulary from that file and uses the type's own rules: with
    DeepSeek's tokenizer and a Llama model, every space is lost. Raises OSError, ValueError or KeyError if the files are
    missing or damaged.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    file = folder / "tokenizer.json"
    if not file.is_file():
        return tokenizer
    in_file = Tokenizer.from_file(str(file))
    ids = in_file.encode(SAMPLE_TEXT, add_special_tokens=False).ids
    same_rules = tokenizer(SAMPLE_TEXT, add_special_tokens=False)["input_ids"] == ids
    # The model type may also add special tokens that neither the file nor the model's embedding has.
    same_size = len(tokenizer) == in_file.get_vocab_size()
    return tokenizer if same_rules and same_size else PreTrainedTokenizerFast.from_pretrained(folder)


def _check_weights(folder: Path, path: str) -> None:
    """Raise ConfigError if a weights file is missing or shorter than its header says."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        else:
            names = {file.name for file in folder.glob("*.safetensors")}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.path={path}: {index.name} is damaged ({error!r}). Copy the model again.") from error
    if not names and not any(folder.glob("*.bin")):
        raise ConfigError(f"model.path={path}: {folder} holds no weights (*.safetensors). Copy the model again.")
    for name in sorted(names):
        try:
            with safe_open(folder / name, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"model.path={path}: {name} is missing or cut short ({error}). Copy or download the model again."
            ) from error
