"""The workloads of the benchmarks: small models with random weights, and responses of fixed lengths.

`equal` and `varied` have 2.65 M parameters and 16 prompts of 16 tokens with 8 responses each. In `equal` each response
has 64 tokens; in `varied` lengths are log-normal like in real runs, with mean 64 and at most 256. `realistic` has 4
prompts of 256 tokens with 8 responses of such lengths, Qwen3's tokenizer with 151,936 embeddings, and two small layers:
20 M parameters, all but 0.3 M of them in the embedding. The reward is computed from a response's tokens, so that every
response has an advantage.
"""

import hashlib
import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROMPT_TOKENS = 16
END = "<|endoftext|>"  # the name that Qwen2's tokenizer would add
SIGMA = 0.8  # of the logarithm of a length
NUM_PROBLEMS = 512
LETTERS = "abcdefghijklmnop"  # with the byte-level tokenizer, one token each
# With Qwen3's tokenizer, each is one token, with or without a space before it.
WORDS = ["the", "a", "of", "and", "to", "in", "that", "was", "for", "are", "with", "one", "have", "had", "by", "all"]
WORDS += ["there", "each", "she", "how", "many", "some", "her", "would", "make", "two", "more", "number", "day", "get"]
QWEN3 = Path(__file__).parents[2] / "shared" / "data" / "tokenizers" / "qwen3"


@dataclass(frozen=True)
class Workload:
    """The work of a step; lengths in tokens."""

    name: str
    prompts: int = 16  # per step
    group_size: int = 8
    mean: int = 64
    longest: int = 64  # if the same as `mean`, all lengths are equal
    prompt_tokens: int = PROMPT_TOKENS  # the same for all prompts, so that TRL needs no padding
    shape: Mapping[str, int] = field(default_factory=dict)  # overrides values of the model's config.json
    tokenizer: Path | None = None  # a folder; None: one token per byte, padded to the size of the embedding
    ranks: int = 2  # the most that fit into 12 GiB together with as many ranks of TRL
    trl_batch: int = 32  # sequences; the fastest of 8, 16, 32 and 128 over `equal` and `varied`

    @property
    def lengths(self) -> list[int]:
        """The length of each response of a step, prompt by prompt; the same in every step."""
        number = self.prompts * self.group_size
        if self.longest == self.mean:
            return [self.mean] * number
        draw = random.Random(0)
        mu = math.log(self.mean) - SIGMA**2 / 2
        drawn = [draw.lognormvariate(mu, SIGMA) for _ in range(number)]
        return [min(self.longest, max(1, round(length))) for length in drawn]


REALISTIC = Workload(
    "realistic" if QWEN3.exists() else "realistic, byte tokenizer",
    prompts=4,
    longest=256,
    prompt_tokens=256,
    shape={
        "vocab_size": 151_936,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    tokenizer=QWEN3 if QWEN3.exists() else None,
    ranks=1,
    trl_batch=4,  # with 32, TRL takes more than 7 GiB
)
WORKLOADS = {w.name: w for w in (Workload("equal"), Workload("varied", longest=256), REALISTIC)}


def surprise(token_ids: Sequence[int]) -> float:
    """A reward between 0 and 1 that differs for any two responses."""
    return int.from_bytes(hashlib.blake2b(bytes(str(list(token_ids)), "ascii"), digest_size=4).digest()) / 2**32


def reward(completion, problem) -> float:
    """`surprise` as a reward function for r1zero."""
    return surprise(completion.token_ids)


def problems(workload: Workload) -> list[str]:
    """Texts of `workload.prompt_tokens` tokens, all different."""
    draw = random.Random(1)
    units, space = (WORDS, " ") if workload.tokenizer else (LETTERS, "")
    return [space.join(draw.choices(units, k=workload.prompt_tokens)) for _ in range(NUM_PROBLEMS)]


def write_problems(path: Path, workload: Workload) -> None:
    rows = [{"id": f"{i}", "problem": text, "answer": "0"} for i, text in enumerate(problems(workload))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_model(folder: Path, workload: Workload, *, device: str = "cpu", **shape: int) -> None:
    """Write a Qwen2 with random weights, the same in every call, and the workload's tokenizer.

    `shape` and the workload's shape override values of its config.json. On `cuda`, weights are created on the GPU in
    bf16, for models that would take a minute on a CPU.
    """
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

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
    }
    settings |= {**workload.shape, **shape}
    if workload.tokenizer:
        folder.mkdir(parents=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(workload.tokenizer / name, folder / name)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = problems(workload)[0]
        assert len(tokenizer(text).input_ids) == workload.prompt_tokens, "each word must be a single token"
    else:
        tokenizer = _byte_tokenizer(settings["vocab_size"])
        tokenizer.save_pretrained(folder)
    settings |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            Qwen2ForCausalLM(Qwen2Config(**settings)).save_pretrained(folder)
    finally:
        torch.set_default_dtype(default_dtype)


def _byte_tokenizer(num_ids: int):
    """A tokenizer with one token per byte; the other ids occur only in sampled responses."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = [f"w{i}" for i in range(num_ids - 1 - len(bytes_))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([END, *bytes_, *others])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
