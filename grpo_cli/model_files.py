"""The base model's folder, here or on the Hub, and what can be known about it without transformers or torch."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from grpo_cli.config.model import ModelConfig, ShapeConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.data import make_zero, random_base
from grpo_cli.data.sources import HUB_TIMEOUT_S
from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.planner.shape import read_shape

BUILTIN: dict[str, Callable[[], Path]] = {
    "builtin:make_zero": make_zero.base_model_dir,
    "builtin:make_zero_mixed": partial(make_zero.base_model_dir, "make_zero_mixed"),
    "builtin:make_zero_half": partial(make_zero.base_model_dir, "make_zero_half"),
    "builtin:make_zero_guess": partial(make_zero.base_model_dir, "make_zero_guess"),
    "builtin:make_zero_sizes": partial(make_zero.base_model_dir, "make_zero_sizes"),
    "builtin:random": random_base.base_model_dir,
}
SETTINGS, WEIGHTS = ("*.json", "*.txt", "*.model", "*.jinja"), ("*.safetensors",)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
    "tekken.json",
)


def model_folder(config: ModelConfig) -> Path:
    """The folder of the model, which is downloaded if it is on the Hub."""
    if config.path in BUILTIN:
        return BUILTIN[config.path]()
    folder = Path(config.path).expanduser()
    return folder if folder.is_dir() else _download(config, (*SETTINGS, *WEIGHTS), "model.path")


def check_model(
    config: ModelConfig,
    templates: Iterable[TemplateConfig] = (),
    needed_len: int | None = None,
    *,
    key: str = "model.path",
    ask_hub: bool = True,
) -> None:
    """Raise what is wrong with a model before transformers is imported: it is missing, reads too few tokens, or has no
    tokenizer or, for a template that is a chat, no chat template.

    `needed_len` is that of `load_base_model`, and `key` the setting that the path comes from. Of a model on the Hub,
    only the small files are downloaded; without `ask_hub` it is not checked.
    """
    path = Path(config.path).expanduser()
    if config.path in BUILTIN:
        folder = BUILTIN[config.path]()
    elif path.is_dir() or ask_hub:
        folder = path if path.is_dir() else _download(config, SETTINGS, key)
    else:
        return
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ConfigError(
            f"{key}={config.path}: it has no tokenizer (none of {', '.join(TOKENIZER_FILES)}). Give a folder "
            "with the config.json and the tokenizer of the model; save_pretrained of the tokenizer writes it."
        )
    if any(template.chat for template in templates) and not _has_chat_template(folder):
        raise ConfigError(
            f"{key}={config.path}: the template is a chat, and the model's tokenizer has no chat template. Set "
            "template=r1 or template=qwen_math, or use a model with a chat template."
        )
    check_length(config, context_length(folder / "config.json"), needed_len, key)


def context_length(file: Path) -> int | None:
    """The number of tokens that the model of a config.json reads; None if the file does not say."""
    with suppress(OSError, ValueError, AttributeError):  # a damaged file: transformers says what is wrong with it
        shape = json.loads(file.read_text(encoding="utf-8"))
        return shape.get("text_config", shape).get("max_position_embeddings")
    return None


def check_length(config: ModelConfig, limit: int | None, needed_len: int | None, key: str = "model.path") -> None:
    """Raise ConfigError if the run's longest sequence is longer than the model reads."""
    if limit is not None and needed_len is not None and needed_len > limit:
        raise ConfigError(
            f"{key}={config.path} reads at most {limit} tokens, and rollout.max_prompt_tokens and "
            f"rollout.max_new_tokens ask for {needed_len}. Lower one of them."
        )


def find_shape(
    model: ModelConfig,
    key: str = "model.path",
    otherwise: str = "Set model.shape in a file in conf/model, as qwen2_5_math_7b.yaml does.",
) -> ShapeConfig:
    """The shape in the settings; otherwise that of the model's folder or of the Hub's cache.

    If there is none, raises ConfigError, which names the setting `key` and, for a shape of another kind, says what to
    do `otherwise`.
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
            f"{key}={model.path}: config.json does not describe a shape that can be planned ({error}). {otherwise}"
        ) from error


def find_teacher_shape(config: TrainConfig) -> ShapeConfig | None:
    """The shape of algorithm.reference.path; None if it names no teacher. Raises ConfigError if it is unknown."""
    path = config.algorithm.reference.path
    if path is None:
        return None
    otherwise = "`r1zero train` can use this teacher, but `r1zero plan` needs another one."
    return find_shape(ModelConfig(name="teacher", path=path), "algorithm.reference.path", otherwise)


def check_same_tokens(key: str, path: str, found: Mapping[str, int], needed: Mapping[str, int]) -> None:
    """Raise ConfigError if the vocabulary of the model of a setting differs from the one `needed` by model.path."""
    if different := sorted(dict(found.items() ^ needed.items())):
        raise ConfigError(
            f"{key}={path}: this model gets the token ids of model.path, and {len(different)} tokens differ, such as "
            f"{different[0]!r}. Set {key} to a model with the same tokenizer."
        )


def _has_chat_template(folder: Path) -> bool:
    if any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    ):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # a damaged file: transformers says what is wrong with it
        return True


def _download(config: ModelConfig, patterns: Sequence[str], key: str) -> Path:
    """Download the files of a model on the Hub that match `patterns`, or find them in the cache."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)
    from_cache = constants.HF_HUB_OFFLINE
    try:
        if not from_cache:
            try:
                # Ask first: without a network, a download would retry for minutes before it gives up.
                HfApi().model_info(config.path, revision=config.revision, timeout=HUB_TIMEOUT_S)
            except absent:
                raise
            except (OSError, errors.HTTPError):
                from_cache = True
        return Path(
            snapshot_download(
                config.path, revision=config.revision, allow_patterns=list(patterns), local_files_only=from_cache
            )
        )
    except absent as error:
        raise ConfigError(f"{key}={config.path}: neither a folder here nor a model on the Hub. {error}") from error
    except (OSError, errors.HTTPError) as error:
        raise SetupError(
            f"{key}={config.path}: there is no such folder, the Hub cannot be reached ({type(error).__name__}), "
            "and the model is not in the cache. Download it on a machine with a network (`hf download`), or set "
            f"{key} to a folder."
        ) from error
