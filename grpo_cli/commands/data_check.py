"""What is known of the data and the prompts before anything is loaded: `train` checks it, `plan` shows it."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.table import Table

from grpo_cli.commands.plan_tables import fact_table
from grpo_cli.config.supervised import RewardModelTask, SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.demonstrations import Demonstration, DemonstrationSet, demonstration_token_ids
from grpo_cli.data.file_tokenizer import FileTokenizer, local_model_file, local_tokenizer
from grpo_cli.data.lengths import Example, check_any_fits, no_example_fits
from grpo_cli.data.preferences import Preference, PreferenceSet
from grpo_cli.data.problems import ProblemSet
from grpo_cli.data.templates import none_fits, render
from grpo_cli.model_files import context_length
from grpo_cli.printing import printable
from grpo_cli.reward.model import reward_token_ids
from grpo_cli.types import Problem

MAX_MEASURED = 2000  # prompts
MAX_SHOWN = 1500  # characters of a prompt
MAX_UNKNOWN = 0.05  # of the prompts' tokens


def check_prompts(config: TrainConfig, problems: ProblemSet) -> None:
    """Raise DataError if all prompts are too long, ConfigError if the model has no suitable chat template.

    Only if the model's tokenizer is on this machine; otherwise the ranks find out.
    """
    if (tokenizer := local_tokenizer(config.model)) is None:
        return
    limit = config.rollout.max_prompt_tokens

    def count_tokens(some: Sequence[Problem]) -> list[int]:
        return [len(prompt.token_ids) for prompt in render(some, config.template, tokenizer)]

    for part in (problems.train, problems.heldout):
        check_any_fits(part, count_tokens, limit, partial(none_fits, max_prompt_tokens=limit))


def check_demonstrations(config: SFTTask, demonstrations: DemonstrationSet) -> None:
    """As `check_prompts`, for the demonstrations of `sft`: prompt and response together."""
    if (tokenizer := local_tokenizer(config.model)) is None:
        return

    def count_tokens(some: Sequence[Demonstration]) -> list[int]:
        end = (0,)  # any token
        return [len(p) + len(r) for p, r in demonstration_token_ids(some, config.template, tokenizer, end)]

    for part in (demonstrations.train, demonstrations.heldout):
        _check_any_example_fits(part, "demonstrations", count_tokens, config)


def check_preferences(config: RewardModelTask, preferences: PreferenceSet) -> None:
    """As `check_prompts`, for the pairs of `reward-model`: the longer side counts."""
    if (tokenizer := local_tokenizer(config.model)) is None:
        return

    def count_tokens(pairs: Sequence[Preference]) -> list[int]:
        chosen = reward_token_ids(tokenizer, [(pair.problem, pair.chosen) for pair in pairs])
        rejected = reward_token_ids(tokenizer, [(pair.problem, pair.rejected) for pair in pairs])
        return [max(len(better), len(worse)) for better, worse in zip(chosen, rejected, strict=True)]

    for part in (preferences.train, preferences.heldout):
        _check_any_example_fits(part, "pairs", count_tokens, config)


def _check_any_example_fits(
    examples: Sequence[Example],
    name: str,
    count_tokens: Callable[[Sequence[Example]], list[int]],
    config: SFTTask | RewardModelTask,
) -> None:
    file, max_tokens = local_model_file(config.model, "config.json"), config.data.max_tokens
    context = config.model.max_model_len or (context_length(file) if file else None)  # None: unknown
    error = partial(no_example_fits, name=name, max_tokens=max_tokens, context=context)
    check_any_fits(examples, count_tokens, min(max_tokens, context or max_tokens), error)


def data_warnings(config: TrainConfig, num_problems: int) -> Iterator[str]:
    """What works with this number of training problems, but perhaps not as intended."""
    if config.rollout.prompts_per_step > num_problems:
        yield (
            f"rollout.prompts_per_step={config.rollout.prompts_per_step} is more than the {num_problems} training "
            "problems: a step asks some of them twice. Lower it, or use more data."
        )


def unknown_text_warnings(config: TrainConfig, problems: ProblemSet) -> Iterator[str]:
    """Whether the model cannot read the prompts, because its vocabulary does not have their words."""
    tokenizer = local_tokenizer(config.model)
    if tokenizer is None or tokenizer.unknown_id is None:
        return
    prompts = render(problems.train[:MAX_MEASURED], config.template, tokenizer)
    num_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    num_unknown = sum(prompt.token_ids.count(tokenizer.unknown_id) for prompt in prompts)
    if num_unknown > MAX_UNKNOWN * num_tokens:
        yield (
            f"{num_unknown / num_tokens:.0%} of the prompts' tokens stand for words that {config.model.name} does not "
            "know: it cannot read these problems. Choose another model, or model=random to try your own data without "
            "a download."
        )


def prompt_lengths(config: TrainConfig, problems: ProblemSet, tokenizer: FileTokenizer) -> list[int]:
    """The lengths of up to MAX_MEASURED training prompts in tokens, in ascending order."""
    measured = random.Random(0).sample(problems.train, min(MAX_MEASURED, len(problems.train)))
    return sorted(len(prompt.token_ids) for prompt in render(measured, config.template, tokenizer))


def data_table(config: TrainConfig, problems: ProblemSet, tokenizer: FileTokenizer | None) -> Table:
    """The numbers of problems and, with a tokenizer, the lengths of prompts."""
    train, asked = problems.train, config.steps * config.rollout.prompts_per_step
    rows = {
        "problems": f"{len(train):,} to train on, {len(problems.heldout):,} held out",
        "the run uses": f"{asked:,} prompts, {asked / len(train):,.1f} epochs",
        "prompt tokens": "unknown: the model's tokenizer.json is not on this machine",
    }
    if tokenizer is not None:
        lengths = prompt_lengths(config, problems, tokenizer)
        at_half, at_95 = (lengths[int(share * (len(lengths) - 1))] for share in (0.5, 0.95))
        note = f" (of {len(lengths):,} prompts)" if len(lengths) < len(train) else ""
        rows["prompt tokens"] = f"median {at_half}, 95 % have at most {at_95}, longest {lengths[-1]}{note}"
        limit = config.rollout.max_prompt_tokens
        if longer := sum(length > limit for length in lengths):
            rows["left out"] = f"{longer / len(lengths):.1%} of the prompts, by rollout.max_prompt_tokens={limit}"
    return fact_table("Data", rows)


def first_prompt(config: TrainConfig, problems: ProblemSet, tokenizer: FileTokenizer) -> str:
    """The first prompt as the model sees it, without the middle of a long one."""
    (prompt,) = render(problems.train[:1], config.template, tokenizer)
    text, half = printable(prompt.text), MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[:half]}\n[... {len(text) - 2 * half:,} more ...]\n{text[-half:]}"
