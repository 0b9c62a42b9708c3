"""Scores from a reward model: a Hugging Face sequence classifier with one output."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grpo_cli.choices import Device
from grpo_cli.errors import ConfigError
from grpo_cli.reward.background import Background
from grpo_cli.reward.terms import ModelTerm
from grpo_cli.types import Completion, Problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def reward_model(name: str, term: ModelTerm, device: Device) -> Background:
    """Returns a term whose value is the model's single logit; texts are truncated to `term.max_tokens`.

    If `term.device` is auto, the model is on `device`, that of the cluster; cuda is the GPU that `start_ranks` gave
    this rank. Raises ConfigError if the model cannot be loaded or does not have exactly one output.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    key = f"reward.terms.{name}.path={term.path}"
    place = device if term.device == "auto" else term.device
    try:
        tokenizer = AutoTokenizer.from_pretrained(term.path, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(term.path, trust_remote_code=False)
        model = model.to(place).eval()
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{key}: needs its own Python code to load. r1zero never runs code that comes with a model, and no "
                "setting allows it. Use a model of a family that transformers supports."
            ) from None
        raise ConfigError(
            f"{key}: cannot be loaded: {str(error).strip()}\nGive a folder, such as model/ in a run of "
            "`r1zero reward-model`, or a Hub id."
        ) from error
    if model.config.num_labels != 1:
        raise ConfigError(
            f"{key}: has {model.config.num_labels} outputs. Give a reward model: a sequence classifier with one."
        )
    use_padding(model, tokenizer)

    @torch.inference_mode()
    def score(completions: list[Completion], problems: list[Problem], step: int) -> list[float]:
        texts = [(problem.text, completion.text) for problem, completion in zip(problems, completions, strict=True)]
        token_ids_B = reward_token_ids(tokenizer, texts, max_tokens=term.max_tokens)
        tokens_BS, mask_BS = padded(token_ids_B, tokenizer.pad_token_id, model.device)
        return model(input_ids=tokens_BS, attention_mask=mask_BS).logits[:, 0].float().tolist()

    return Background(name, score, term.batch_size)


def reward_text(tokenizer: "PreTrainedTokenizerBase", problem: str, response: str) -> str:
    """Returns the input text of a reward model: both turns in its chat template, or one per line if it has none."""
    if tokenizer.chat_template is None:
        return f"{problem}\n{response}"
    turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(turns, tokenize=False)


def reward_token_ids(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]], max_tokens: int | None = None
) -> list[list[int]]:
    """Returns the input ids for each (problem, response), truncated to `max_tokens` if it is given."""
    return tokenizer(
        [reward_text(tokenizer, problem, response) for problem, response in texts],
        add_special_tokens=tokenizer.chat_template is None,  # a chat template already contains them
        truncation=max_tokens is not None,
        max_length=max_tokens,
    )["input_ids"]


def padded(
    token_ids_B: Sequence[Sequence[int]], pad_id: int, device: "torch.device"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Returns the ids, padded on the right, and their attention mask, both of shape (B, S)."""
    import torch

    width = max(map(len, token_ids_B))
    tokens_BS = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in token_ids_B])
    lengths_B = torch.tensor([len(ids) for ids in token_ids_B])
    return tokens_BS.to(device), (torch.arange(width) < lengths_B[:, None]).long().to(device)


def use_padding(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Set the same padding token in tokenizer and model, which reads a score at the last token that is not padding."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
