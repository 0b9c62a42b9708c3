"""The base models of the built-in task: their training on honest traces, and the gates that they must pass.

Reinforcement learning amplifies what the base model does now and then. A base that cannot work a candidate out, that
never goes on after a "no", or that goes on in circles, learns slowly or not at all; hence the gates.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grpo_cli.data.make_zero import EOS, NUM_TERMS, PAD, TOTAL_OF, heldout_problems, problems, sample_trace
from grpo_cli.data.make_zero_variants import Quality, Recipe, Variant
from grpo_cli.errors import TrainingError

PROMPT_TOKENS = NUM_TERMS + 2  # `13 5 6 2 :`
NO_TARGET = -100


def build_base(folder: Path, variant: Variant, *, seed: int) -> Quality:
    """Train the base model and write it to `folder` in Hugging Face's layout.

    With one thread, the same seed gives the same weights on one machine, bit by bit.

    Raises:
        TrainingError: the model fails a gate; nothing is written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = train_base(variant, random.Random(seed))
        quality = measure(sample_responses(model, variant, samples=4), variant.recipe.updates)
    check_gates(quality, variant.gates)
    model.save_pretrained(folder)
    build_tokenizer(variant).save_pretrained(folder)
    return quality


def build_tokenizer(variant: Variant) -> PreTrainedTokenizerFast:
    """One token a word. Only <eos> and <pad> are special: the tags are to survive decoding."""
    tokenizer = Tokenizer(models.WordLevel(_token_ids(variant), unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def _token_ids(variant: Variant) -> dict[str, int]:
    return {word: token_id for token_id, word in enumerate(variant.vocabulary)}


def build_model(variant: Variant) -> LlamaForCausalLM:
    """Under 0.2 M parameters, drawn from torch's global generator."""
    # Shaped like Qwen2 but of the type llama: for qwen2, AutoTokenizer would replace our pre-tokenizer.
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(variant.vocabulary),
            hidden_size=64,
            intermediate_size=variant.intermediate_size,
            num_hidden_layers=3,
            num_attention_heads=2,  # of size 32, the least that vLLM takes on a CPU
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
    texts = [problem.text for problem in problems()]
    model.train()
    for _ in track(range(recipe.updates), "Training the base model", transient=True):
        traces = [_document(texts, variant, rng) for _ in range(recipe.documents)]
        documents = sorted((_encode(trace, token_ids) for trace in traces), key=len)
        num_targets = sum(len(document) - PROMPT_TOKENS for document in documents)
        size = math.ceil(len(documents) / recipe.microbatches)
        for start in range(0, len(documents), size):
            (trace_loss(model, documents[start : start + size]) / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def learning_rate(recipe: Recipe, update: int) -> float:
    """A linear warm-up, and a cosine over all updates."""
    cosine = (1 + math.cos(math.pi * update / recipe.updates)) / 2
    warmup = min(1, (update + 1) / recipe.warmup_updates)
    return warmup * (recipe.final_lr + (recipe.lr - recipe.final_lr) * cosine)


def _document(texts: Sequence[str], variant: Variant, rng: random.Random) -> str:
    """A problem, a colon and a trace."""
    text, recipe = rng.choice(texts), variant.recipe
    persistence = recipe.persistent if rng.random() < recipe.persistent_share else recipe.impatient
    return f"{text} : {sample_trace(text, rng, persistence=persistence, say=variant.say)}"


def _encode(text: str, token_ids: dict[str, int]) -> Tensor:
    return torch.tensor([token_ids[word] for word in text.split()])


def trace_loss(model: LlamaForCausalLM, documents: Sequence[Tensor]) -> Tensor:
    """-log p, summed over the tokens of the documents' traces."""
    ids_BT = pad_sequence(documents, batch_first=True, padding_value=model.config.pad_token_id)
    labels_BT = pad_sequence(documents, batch_first=True, padding_value=NO_TARGET)[:, PROMPT_TOKENS:]
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits[:, PROMPT_TOKENS - 1 :]
    return cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=NO_TARGET, reduction="sum")


def sample_responses(model: LlamaForCausalLM, variant: Variant, samples: int) -> list[str]:
    """`samples` responses to each held-out problem, at temperature 1, from torch's global generator."""
    token_ids = _token_ids(variant)
    prompts_BT = torch.stack([_encode(f"{problem.text} :", token_ids) for problem in heldout_problems() * samples])
    sequences_BT = model.generate(
        prompts_BT, attention_mask=torch.ones_like(prompts_BT), do_sample=True, top_k=0, max_new_tokens=128
    )
    return build_tokenizer(variant).batch_decode(sequences_BT[:, PROMPT_TOKENS:], skip_special_tokens=True)


def measure(responses: Sequence[str], updates: int) -> Quality:
    """Audit each equation against the total before it, and each verdict against the last equation."""
    equations: list[bool] = []
    verdicts: dict[str, list[bool]] = {"yes": [], "no": []}  # by what would have been right
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
        updates=updates,
        right_equations=_share(equations),
        right_verdicts=min(map(_share, verdicts.values())),
        new_candidates=_share(novelty),
        waits=sum(response.split().count("wait") for response in responses) / len(responses),
    )


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def check_gates(quality: Quality, least: Quality) -> None:
    """Raise TrainingError, naming every figure that is too low for reinforcement learning to build on."""
    gates = {
        "updates": (quality.updates, least.updates),
        "right equations": (quality.right_equations, least.right_equations),
        "right verdicts": (quality.right_verdicts, least.right_verdicts),
        "new candidates": (quality.new_candidates, least.new_candidates),
        '"wait" a response': (quality.waits, least.waits),
    }
    failed = [f"{name} {seen:.4g}, at least {gate}" for name, (seen, gate) in gates.items() if seen < gate]
    if failed:
        raise TrainingError(
            f"The base model is not good enough to learn from ({'; '.join(failed)}), and was not written. "
            "Train it for more updates, or from another seed."
        )
