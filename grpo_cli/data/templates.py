"""Templates: turn a problem into a prompt, as text and as token ids."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.types import Problem, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from grpo_cli.data.file_tokenizer import FileTokenizer

PromptTokenizer = Union["PreTrainedTokenizerBase", "FileTokenizer"]


def render(problems: Sequence[Problem], template: TemplateConfig, tokenizer: PromptTokenizer) -> list[Prompt]:
    """The prompt of each problem. Raises ConfigError if the tokenizer has no chat template that `template` can use."""
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
    problems: Sequence[Problem], template: TemplateConfig, tokenizer: PromptTokenizer, max_prompt_tokens: int
) -> tuple[list[Prompt], int]:
    """The prompts with at most `max_prompt_tokens` tokens, and the number of longer ones, which are dropped.

    Raises DataError if no prompt remains, and the same errors as `render`.
    """
    prompts = render(problems, template, tokenizer)
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= max_prompt_tokens]
    if prompts and not kept:
        raise none_fits(len(prompts), min(len(prompt.token_ids) for prompt in prompts), max_prompt_tokens)
    return kept, len(prompts) - len(kept)


def none_fits(num: int, shortest: int, max_prompt_tokens: int) -> DataError:
    """The error for `num` prompts, the shortest of which is too long."""
    return DataError(
        f"All {num} prompts are longer than rollout.max_prompt_tokens={max_prompt_tokens}: the shortest has {shortest} "
        f"tokens. Raise rollout.max_prompt_tokens to {shortest} or more."
    )


def _render_text(problem: Problem, template: TemplateConfig, tokenizer: PromptTokenizer) -> str:
    turns = template.turns(problem.text)
    if not template.chat:
        return turns[-1]["content"]
    if tokenizer.chat_template is None:
        raise ConfigError(
            "The template is a chat, but the model's tokenizer has no chat template. Set template=r1 or "
            "template=qwen_math, or use a model with a chat template."
        )
    from jinja2 import TemplateError

    try:
        opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ConfigError(
            f"The chat template of the model's tokenizer rejects a chat with the roles {roles}: {error}. Set "
            "template.system=null, or choose a template that is not a chat, such as template=r1."
        ) from error
    return opened + template.response_prefix
