"""A base model with random weights and a byte-level tokenizer, which accepts any text."""

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

CONTEXT = 8192  # tokens; one token is one byte
END = "<|end|>"
HIDDEN, HEADS = 64, 2


def base_model_dir() -> Path:
    """The folder of the model in Hugging Face's layout, created in the user's cache if it does not exist yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1zero"
    folder = cache / "random_base"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        new_folder = Path(tempfile.mkdtemp(dir=cache))
        build_base(new_folder)
        try:
            new_folder.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(new_folder)
    return folder


def build_base(folder: Path) -> None:
    """Write the model and its tokenizer with one id per byte."""
    write_tokenizer(folder)
    write_model(folder, num_rows=257, end_id=256)


def write_tokenizer(folder: Path, num_entries: int = 257) -> None:
    """Write a tokenizer with one id per byte, then `END`, then entries that no text is split into."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), END]
    entries += [f"<{n}>" for n in range(len(entries), num_entries)]
    tokenizer = Tokenizer(models.BPE({entry: i for i, entry in enumerate(entries)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)


def write_model(
    folder: Path,
    *,
    num_rows: int,
    end_id: int,
    model_type: str = "llama",
    tied: bool = True,
    mean_len: int | None = None,
) -> None:
    """Write a model with two small layers and `num_rows` embeddings; the same in every call.

    All tokens are about equally likely, so with many of them a response hardly ever ends. With `mean_len`, responses
    end after about that many tokens on average.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model_type,
        vocab_size=num_rows,
        hidden_size=HIDDEN,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        if mean_len:
            _set_mean_len(model, end_id, mean_len)
    model.save_pretrained(folder)


def _set_mean_len(model: Any, end_id: int, mean_len: int) -> None:
    """Change the weights so that `end_id` has a probability of about 1 / `mean_len` at every position."""
    import torch

    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        embedding[:, 0] = 0.1  # five times the random scale, so that the hidden states keep it
        hidden = model.get_decoder()(torch.randint(len(embedding), (8, 64))).last_hidden_state[..., 0].mean()
        output[end_id, 0] += math.log(len(embedding) / mean_len) / hidden
