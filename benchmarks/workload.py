"""What the benchmarks run: a model of 2.65 M parameters with random weights, 16 prompts x 8, and given lengths.

Of the two workloads, `equal` has responses of 64 tokens each, `varied` lengths drawn log-normal with mean 64 and at
most 256, as real runs have them. A response earns a number made of its tokens, so that every one has an advantage.
"""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPT_TOKENS = 16
END = "<|endoftext|>"  # the name that Qwen2's tokenizer would add
SIGMA = 0.8  # of the logarithm of a length
NUM_PROBLEMS = 512


@dataclass(frozen=True)
class Workload:
    """How much a step samples and trains on; lengths in tokens."""

    name: str
    prompts: int = 16  # a step
    group_size: int = 8
    mean: int = 64
    longest: int = 64  # the same as `mean`: all are equal

    @property
    def lengths(self) -> list[int]:
        """Of each response of a step, prompt by prompt; the same in every step."""
        number = self.prompts * self.group_size
        if self.longest == self.mean:
            return [self.mean] * number
        draw = random.Random(0)
        mu = math.log(self.mean) - SIGMA**2 / 2
        drawn = [draw.lognormvariate(mu, SIGMA) for _ in range(number)]
        return [min(self.longest, max(1, round(length))) for length in drawn]


WORKLOADS = {w.name: w for w in (Workload("equal"), Workload("varied", longest=256))}


def surprise(token_ids: Sequence[int]) -> float:
    """A reward between 0 and 1 that no two responses share."""
    return int.from_bytes(hashlib.blake2b(bytes(str(list(token_ids)), "ascii"), digest_size=4).digest()) / 2**32


def reward(completion, problem) -> float:
    """`surprise` as a reward term of r1zero."""
    return surprise(completion.token_ids)


def problems() -> list[str]:
    """Texts of `PROMPT_TOKENS` tokens, all different."""
    draw = random.Random(1)
    return ["".join(draw.choices("abcdefghijklmnop", k=PROMPT_TOKENS)) for _ in range(NUM_PROBLEMS)]


def write_problems(path: Path) -> None:
    rows = [{"id": f"{i}", "problem": text, "answer": "0"} for i, text in enumerate(problems())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_model(folder: Path, *, device: str = "cpu", **shape: int) -> None:
    """A Qwen2 of random weights, always the same, behind a byte-level tokenizer of as many ids as it has.

    `shape` overrides what is in its config.json. On `cuda` the weights are in bf16, for models that would take a CPU
    a minute.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    settings = {
        "vocab_size": 1100,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    } | shape
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    unread = [f"w{i}" for i in range(settings["vocab_size"] - 1 - len(bytes_))]  # they are only sampled
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([END, *bytes_, *unread])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            Qwen2ForCausalLM(Qwen2Config(**settings)).save_pretrained(folder)
    finally:
        torch.set_default_dtype(usual)
