"""Templates: turn a problem into a prompt, as text and as token ids."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.types import Problem, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(problems: Sequence[Problem], template: TemplateConfig, tokenizer: "PreTrainedTokenizerBase") -> list[Prompt]:
    """The prompt of each problem. Raises ConfigError if the tokenizer lacks the chat template that `template` needs."""
    if template.chat and tokenizer.chat_template is None:
        raise ConfigError(
            "The template is a chat, but the model's tokenizer has no chat template. Set template=r1 or "
            "template=qwen_math, or use a model with a chat template."
        )
    if not problems:
        return []
    texts = [_render_text(problem, template, tokenizer) for problem in problems]
    # A chat template has already added the special tokens.
    encoded = tokenizer(texts, add_special_tokens=not template.chat, return_attention_mask=False)["input_ids"]
    return [
        Prompt(problem, text, tuple(token_ids))
        for problem, text, token_ids in zip(problems, texts, encoded, strict=True)
    ]


def render_prompts(
    problems: Sequence[Problem], template: TemplateConfig, tokenizer: "PreTrainedTokenizerBase", max_prompt_tokens: int
) -> tuple[list[Prompt], int]:
    """The prompts with at most `max_prompt_tokens` tokens, and the number of longer ones, which are dropped.

    Raises DataError if no prompt remains, and the same errors as `render`.
    """
    prompts = render(problems, template, tokenizer)
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= max_prompt_tokens]
    if prompts and not kept:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise DataError(
            f"All {len(prompts)} prompts are longer than rollout.max_prompt_tokens={max_prompt_tokens}: the "
            f"shortest has {shortest} tokens. Raise rollout.max_prompt_tokens to {shortest} or more."
        )
    return kept, len(prompts) - len(kept)


def _render_text(problem: Problem, template: TemplateConfig, tokenizer: "PreTrainedTokenizerBase") -> str:
    turns = template.turns(problem.text)
    if not template.chat:
        return turns[-1]["content"]
    opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return opened + template.response_prefix
