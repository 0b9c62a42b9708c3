"""Realistic models and problems: a real tokenizer with its whole vocabulary, and prompts of realistic length.

The models are small and random, so that two cores are enough. Responses end by themselves after different lengths.
"""

import json
import random
import shutil
from pathlib import Path

import pytest

from grpo_cli.data.random_base import write_model

REPOSITORY = Path(__file__).parents[1]
# For each tokenizer: the model type, and the rows of the embedding, which has padding beyond the vocabulary.
MODELS = {
    "qwen3": {"model_type": "qwen3", "num_rows": 151_936, "tied": True},
    "deepseek_v3": {"model_type": "llama", "num_rows": 129_280, "tied": False},
    "trained": {"model_type": "llama", "num_rows": 4096, "tied": True},
}
# As in Qwen's vocabulary, the end token is neither the first nor the last of the special tokens.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|box_start|>", "<|box_end|>", "<think>", "</think>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_files(name: str) -> Path:
    return REPOSITORY.parent / "shared" / "data" / "tokenizers" / name


def write_realistic_model(folder: Path, name: str, mean_len: int) -> None:
    """Write a random model with the tokenizer `name`, whose responses have about `mean_len` tokens.

    Real tokenizers are in ../shared; the test is skipped if the folder is missing. `trained` needs no files.
    """
    if name == "trained":
        folder.mkdir()
        _train_tokenizer(folder)
    else:
        source = tokenizer_files(name)
        if not source.is_dir():
            pytest.skip(f"needs the tokenizer ../shared/data/tokenizers/{name}, which is not part of the repository")
        folder.mkdir()
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
    from transformers import PreTrainedTokenizerFast

    end_id = PreTrainedTokenizerFast.from_pretrained(folder).eos_token_id
    write_model(folder, end_id=end_id, mean_len=mean_len, **MODELS[name])


def _train_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE with 4,000 entries on the text of this repository."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    words = Regex(
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # the same as Qwen's
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000 - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [REPOSITORY / "README.md", *sorted((REPOSITORY / "grpo_cli").rglob("*.py"))]
    tokenizer.train_from_iterator((file.read_text() for file in texts), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    ).save_pretrained(folder)


def word_problems(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Problems like those of GSM8K, with 50 to 300 tokens, and their answers."""
    draw = random.Random(seed)
    return [_word_problem(f"p{number}", draw) for number in range(count)]


def _word_problem(id: str, draw: random.Random) -> dict[str, str]:
    name, friend = draw.sample(["Natalia", "Weng", "Betty", "Julie", "James", "Mark", "Albert", "Ken"], 2)
    thing = draw.choice(["clips", "stickers", "marbles", "cookies", "pencils", "tickets"])
    total = draw.randint(20, 90)
    sentences = [f"{name} starts the week with {total} {thing}, which are kept in a large box under the kitchen table."]
    for _ in range(draw.randint(1, 9)):
        few = draw.randint(2, 12)
        if draw.random() < 0.5 and total > 2 * few:
            total -= few
            sentences.append(f"On the next day {friend} comes along and takes {few} of the {thing} away as a present.")
        else:
            total += few * 3
            sentences.append(f"Later {name} buys 3 more bags at $1.25 a bag, each of which holds {few} {thing}.")
    question = f"How many {thing} does {name} have in the end?"
    return {"id": id, "problem": " ".join([*sentences, question]), "answer": str(total)}


def write_problems(file: Path, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Write problems to `file`, one per line, and return them."""
    problems = word_problems(count, seed)
    file.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return problems


def write_demonstrations(file: Path, problems: list[dict[str, str]]) -> None:
    """Write a right response to each problem, in the format of the r1 template."""
    responses = (f" I follow the story step by step. </think> <answer> {p['answer']} </answer>" for p in problems)
    demonstrations = ({"problem": p["problem"], "response": r} for p, r in zip(problems, responses, strict=True))
    file.write_text("".join(json.dumps(demonstration) + "\n" for demonstration in demonstrations))
