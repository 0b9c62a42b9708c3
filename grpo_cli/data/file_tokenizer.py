"""A tokenizer read from its files alone: it measures prompts without importing transformers, which takes seconds."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from grpo_cli.config.model import ModelConfig
from grpo_cli.data import make_zero
from grpo_cli.errors import ConfigError

# Marks the assistant's text in a template, for training; it adds nothing to the text.
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class FileTokenizer:
    """The part of transformers' tokenizers that prompts need: `chat_template`, calls, and `apply_chat_template`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        settings, jinja = file.with_name("tokenizer_config.json"), file.with_name("chat_template.jinja")
        self._settings = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        templates = self._settings.get("chat_template")
        if isinstance(templates, list):  # several, by name
            templates = {named["name"]: named["template"] for named in templates}.get("default")
        self.chat_template = jinja.read_text(encoding="utf-8") if jinja.is_file() else templates

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool, **_: Any) -> dict[str, list[list[int]]]:
        # One by one: encode_batch starts threads, which do not survive the fork that starts the ranks.
        return {"input_ids": [self._tokenizer.encode(t, add_special_tokens=add_special_tokens).ids for t in texts]}

    def apply_chat_template(self, chat: Sequence[Mapping[str, str]], **options: Any) -> str:
        """The text of a chat. Raises a TemplateError of jinja2 if the template rejects it."""
        special = {name: self._settings[name] for name in SPECIAL if self._settings.get(name)}
        special = {name: token["content"] if isinstance(token, dict) else token for name, token in special.items()}
        return self._compiled.render(messages=chat, **special, **options)

    def get_vocab(self) -> dict[str, int]:
        """The id of each token."""
        return self._tokenizer.get_vocab()

    @property
    def unknown_id(self) -> int | None:
        """The token that stands for a text that the vocabulary does not have; None if it has every text."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return None if unknown is None else self._tokenizer.token_to_id(unknown)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._file))
        except Exception as error:  # the library raises no other class
            raise ConfigError(
                f"{self._file} is not a tokenizer ({error}). Copy or download the model again."
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _compiled(self) -> Any:
        """The chat template, in the environment that transformers gives it."""
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment.from_string(GENERATION.sub("", self.chat_template or ""))


def local_tokenizer(model: ModelConfig) -> FileTokenizer | None:
    """The model's tokenizer; None if it has no tokenizer.json, or if that is not on this machine."""
    file = local_model_file(model, "tokenizer.json")
    return FileTokenizer(file) if file is not None else None


def local_model_file(model: ModelConfig, name: str) -> Path | None:
    """A file of the model in its folder or in the Hub's cache; None if it is in neither."""
    _, builtin, base = model.path.rpartition("builtin:")
    folder = make_zero.base_model_dir(base) if builtin else Path(model.path).expanduser()
    if builtin or folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model.path, name, revision=model.revision)
    except errors.HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
