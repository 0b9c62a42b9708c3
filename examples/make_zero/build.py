"""Trains a base model of the built-in task make_zero on synthetic traces and writes it as a Hugging Face folder.

Reinforcement learning can only amplify what the base model sometimes does. A base model that cannot evaluate a
candidate, never continues after a "no", or repeats itself, learns slowly or not at all. The gates check for this, and a
model that fails one is not written.
"""

import argparse
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from types import ModuleType

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from grpo_cli.data import make_zero, make_zero_sizes
from grpo_cli.data.make_zero import (
    EOS,
    GUESS_VOCABULARY,
    MIXED_VOCABULARY,
    NUM_TERMS,
    PAD,
    TOTAL_OF,
    VOCABULARY,
    Say,
    guess_trace,
    sample_trace,
    say_mixed,
    say_symbol,
)
from grpo_cli.data.make_zero_sizes import LARGE, SMALL

# B documents, T tokens, V vocabulary
MIN_UPDATES = 1000
NO_TARGET = -100
COLON = VOCABULARY.index(":")  # ends the prompt; the same token in every vocabulary


@dataclass(frozen=True, slots=True)
class Recipe:
    updates: int = 1250  # counted, not timed, so that slow machines build the same model
    documents: int = 128  # per update
    microbatches: int = 8  # documents of similar length, to save padding
    lr: float = 8e-3  # peak
    warmup_updates: int = 50
    final_lr: float = 4e-4  # end of the cosine
    # Share of the traces, by the number of terms; the others are written with `impatient`.
    persistent_share: Mapping[int, float] = field(default_factory=lambda: {NUM_TERMS: 0.1})
    persistent: float = 0.95  # probability of continuing after a "no"
    impatient: float = 0.02


@dataclass(frozen=True, slots=True)
class Quality:
    """What the model does on the held-out problems, sampled at temperature 1."""

    right_equations: float  # share of the equations that are correct
    right_verdicts: float  # share of the candidates judged correctly: the lower of those that make 0 and the others
    new_candidates: float  # share of the candidates that the response had not tried before
    waits: float  # mean number of "wait" per response


GATES = Quality(right_equations=0.93, right_verdicts=0.93, new_candidates=0.98, waits=0.05)


@dataclass(frozen=True, slots=True)
class Variant:
    model: str  # the name in conf/model
    vocabulary: tuple[str, ...] = VOCABULARY
    say: Say = say_symbol
    intermediate_size: int = 192
    num_kv_heads: int = 2
    task: ModuleType = make_zero
    go_on: float | None = None  # if set, traces with one candidate, which is then repeated with this probability
    recipe: Recipe = Recipe()
    gates: Quality = GATES


VARIANTS = {
    "plain": Variant("tiny"),
    "mixed": Variant("tiny_mixed", vocabulary=MIXED_VOCABULARY, say=say_mixed),
    "half": Variant("tiny_half", intermediate_size=64, num_kv_heads=1),  # half the parameters, to distill into
    "guess": Variant("tiny_guess", GUESS_VOCABULARY, go_on=0.8, gates=replace(GATES, new_candidates=0.0)),
    # Mostly persistent with small problems, hardly ever with large ones.
    "sizes": Variant("tiny_sizes", task=make_zero_sizes, recipe=Recipe(persistent_share={SMALL: 0.4, LARGE: 0.02})),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, default="plain", help="which model (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("make_zero_base"), help="folder (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that already contains files")
    parser.add_argument("--seed", type=int, default=0, help="for weights and traces (default: %(default)s)")
    parser.add_argument(
        "--updates", type=int, default=Recipe().updates, help=f"at least {MIN_UPDATES} (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="with 1, a seed repeats bit by bit (default: 1)")
    arguments = parser.parse_args()
    if arguments.updates < MIN_UPDATES:
        parser.error(f"--updates {arguments.updates}: must be {MIN_UPDATES} or more")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if any(arguments.out.iterdir()) and not arguments.overwrite:
        parser.error(f"--out {arguments.out} already contains files. Give another folder, or add --overwrite.")
    disable_progress_bar()  # for writing one small file
    torch.set_num_threads(arguments.threads)
    variant = VARIANTS[arguments.variant]
    variant = replace(variant, recipe=replace(variant.recipe, updates=arguments.updates))
    print(build_base(arguments.out, variant, seed=arguments.seed))
    print(f"Train it: r1zero train model={variant.model} model.path={arguments.out}")


def build_base(folder: Path, variant: Variant, *, seed: int) -> Quality:
    """The quality of the base model that was trained and written to `folder`.

    With one thread, the same seed gives bitwise the same weights on one machine. Raises SystemExit if the model fails a
    gate; nothing is written then.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = train_base(variant, random.Random(seed))
        quality = measure(sample_responses(model, variant, samples=4))
    check_gates(quality, variant.gates)
    model.save_pretrained(folder)
    build_tokenizer(variant).save_pretrained(folder)
    return quality


def build_tokenizer(variant: Variant) -> PreTrainedTokenizerFast:
    """One token per word. Only <eos> and <pad> are special, so that decoding keeps the tags."""
    tokenizer = Tokenizer(models.WordLevel(_token_ids(variant), unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def _token_ids(variant: Variant) -> dict[str, int]:
    return {word: token_id for token_id, word in enumerate(variant.vocabulary)}


def build_model(variant: Variant) -> LlamaForCausalLM:
    """A model of less than 0.2 M parameters, initialised from torch's global generator."""
    # Shaped like Qwen2, but of type llama: for qwen2, AutoTokenizer would replace our pre-tokenizer.
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(variant.vocabulary),
            hidden_size=64,
            intermediate_size=variant.intermediate_size,
            num_hidden_layers=3,
            num_attention_heads=2,  # head size 32, the smallest that vLLM supports on a CPU
            num_key_value_heads=variant.num_kv_heads,
            attention_bias=True,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=variant.vocabulary.index(EOS),
            pad_token_id=variant.vocabulary.index(PAD),
        )
    )


def train_base(variant: Variant, rng: random.Random) -> LlamaForCausalLM:
    """A model trained on fresh traces of the training problems; `rng` draws problems and traces."""
    model, recipe, token_ids = build_model(variant), variant.recipe, _token_ids(variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: learning_rate(recipe, update) / recipe.lr)
    texts = [problem.text for problem in variant.task.problems()]
    model.train()
    for _ in track(range(recipe.updates), "Training the base model", transient=True):
        traces = [_document(texts, variant, rng) for _ in range(recipe.documents)]
        documents = sorted((_encode(trace, token_ids) for trace in traces), key=len)
        num_targets = sum(len(document) - _prompt_tokens(document) for document in documents)
        size = math.ceil(len(documents) / recipe.microbatches)
        for start in range(0, len(documents), size):
            (trace_loss(model, documents[start : start + size]) / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def learning_rate(recipe: Recipe, update: int) -> float:
    """The rate of an update: linear warm-up times a cosine over all updates."""
    cosine = (1 + math.cos(math.pi * update / recipe.updates)) / 2
    warmup = min(1, (update + 1) / recipe.warmup_updates)
    return warmup * (recipe.final_lr + (recipe.lr - recipe.final_lr) * cosine)


def _document(texts: Sequence[str], variant: Variant, rng: random.Random) -> str:
    """A problem, a colon and a trace."""
    text, recipe = rng.choice(texts), variant.recipe
    if variant.go_on is not None:
        return f"{text} : {guess_trace(text, rng, go_on=variant.go_on)}"
    share = recipe.persistent_share[len(text.split()) - 1]
    persistence = recipe.persistent if rng.random() < share else recipe.impatient
    return f"{text} : {sample_trace(text, rng, persistence=persistence, say=variant.say)}"


def _encode(text: str, token_ids: dict[str, int]) -> Tensor:
    return torch.tensor([token_ids[word] for word in text.split()])


def _prompt_tokens(document: Tensor) -> int:
    """The tokens up to the colon, as in `13 5 6 2 :`."""
    return document.tolist().index(COLON) + 1


def trace_loss(model: LlamaForCausalLM, documents: Sequence[Tensor]) -> Tensor:
    """Sum of -log p over the tokens of the traces; prompts do not count."""
    ids_BT = pad_sequence(documents, batch_first=True, padding_value=model.config.pad_token_id)
    labels_BT = pad_sequence(documents, batch_first=True, padding_value=NO_TARGET)
    lengths = [_prompt_tokens(document) for document in documents]
    for labels_T, length in zip(labels_BT, lengths, strict=True):
        labels_T[:length] = NO_TARGET
    start = min(lengths)
    labels_BT = labels_BT[:, start:]
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits[:, start - 1 :]
    return cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=NO_TARGET, reduction="sum")


def sample_responses(model: LlamaForCausalLM, variant: Variant, samples: int) -> list[str]:
    """`samples` responses to each held-out problem, at temperature 1, drawn from torch's global generator."""
    token_ids, responses = _token_ids(variant), []
    prompts = [_encode(f"{problem.text} :", token_ids) for problem in variant.task.heldout_problems() * samples]
    for _, same_length in groupby(sorted(prompts, key=len), key=len):
        prompts_BT = torch.stack(list(same_length))
        sequences_BT = model.generate(
            prompts_BT, attention_mask=torch.ones_like(prompts_BT), do_sample=True, top_k=0, max_new_tokens=128
        )
        sequences_BT = sequences_BT[:, prompts_BT.shape[1] :]
        responses += build_tokenizer(variant).batch_decode(sequences_BT, skip_special_tokens=True)
    return responses


def measure(responses: Sequence[str]) -> Quality:
    """Checks each equation against the total before it, and each verdict against the last equation."""
    equations: list[bool] = []
    verdicts: dict[str, list[bool]] = {"yes": [], "no": []}  # by the correct verdict
    novelty: list[bool] = []
    for response in responses:
        total, candidate, tried = None, [], set()
        for word in response.partition("</think>")[0].split():
            if word.isdigit():
                total, candidate = int(word), [word]
            elif total is None:
                continue
            elif word[0] in "+-":
                total += int(word)
                candidate.append(word)
            elif word in TOTAL_OF:
                equations.append(TOTAL_OF[word] == total)
                total = TOTAL_OF[word]
            elif word in verdicts:
                right = "no" if total else "yes"
                verdicts[right].append(word == right)
                novelty.append(tuple(candidate) not in tried)
                tried.add(tuple(candidate))
    return Quality(
        right_equations=_share(equations),
        right_verdicts=min(map(_share, verdicts.values())),
        new_candidates=_share(novelty),
        waits=sum(response.split().count("wait") for response in responses) / len(responses),
    )


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def check_gates(quality: Quality, gates: Quality = GATES) -> None:
    """Raises SystemExit, naming every figure that is too low."""
    failed = [
        f"{name} {getattr(quality, name):.4g} must be {getattr(gates, name)} or more"
        for name in Quality.__dataclass_fields__
        if getattr(quality, name) < getattr(gates, name)
    ]
    if failed:
        raise SystemExit(
            f"The base model is not good enough to learn from, and was not written: {'; '.join(failed)}. "
            "Train it for more --updates, or with another --seed."
        )


if __name__ == "__main__":
    main()
