"""Demonstrations: problems with responses to learn, read from the rows of data sets."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_cli.config.examples import (
    NUM_HELDOUT,
    DemonstrationColumnsConfig,
    DemonstrationsConfig,
    SFTDataConfig,
    typed_mix,
)
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data import make_zero
from grpo_cli.data.rows import column_names, draw_heldout, read_each, read_rows, required_text, shown_columns
from grpo_cli.data.templates import PromptTokenizer, render
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.types import Problem

# How the cold-start responses for each built-in model write totals.
BUILTIN = {
    "builtin:tiny": make_zero.say_symbol,
    "builtin:tiny_mixed": make_zero.say_in_english,
    "builtin:tiny_half": make_zero.say_symbol,
}


@dataclass(frozen=True, slots=True)
class Demonstration:
    problem: str  # not yet formatted by a template
    response: str


@dataclass(frozen=True)
class DemonstrationSet:
    train: tuple[Demonstration, ...]  # repeated according to the weights of their data sets
    heldout: tuple[Demonstration, ...]  # their problems do not occur in `train`


def load_demonstrations(config: SFTDataConfig, seed: int) -> DemonstrationSet:
    """All data sets, mixed by their weights.

    The random problems of the main data set that `draw_heldout` gives are held out: no data set trains on them. Raises
    DataError for invalid data and SetupError if the Hub cannot be reached.
    """
    rng = random.Random(seed)
    main = _read(config, "data")
    problems = list(dict.fromkeys(demonstration.problem for demonstration in main))
    heldout = set(draw_heldout(problems, config.num_heldout, NUM_HELDOUT, rng))
    data_sets = [(main, config.weight)]
    for name, other in sorted(typed_mix(config.mix).items()):
        data_sets.append((_read(other, f"data.mix.{name}"), other.weight))
    train = []
    for demonstrations, weight in data_sets:
        train += _weighted([d for d in demonstrations if d.problem not in heldout], weight, rng)
    if not train:
        raise DataError("No demonstration is left to train on. Raise data.weight, or lower data.num_heldout.")
    return DemonstrationSet(tuple(train), tuple(d for d in main if d.problem in heldout))


def demonstration_token_ids(
    demonstrations: Sequence[Demonstration], template: TemplateConfig, tokenizer: PromptTokenizer, end: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each demonstration as the token ids of its prompt and its response.

    A response ends as a sampled one does: with the tokens `end`, or with a stop string of the template.
    """
    prompts = render([Problem("", d.problem, "") for d in demonstrations], template, tokenizer)
    texts = [d.response.removeprefix(template.response_prefix) for d in demonstrations]
    responses = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [
        (prompt.token_ids, (*token_ids, *(() if text.endswith(tuple(template.stop)) else end)))
        for prompt, text, token_ids in zip(prompts, texts, responses, strict=True)
    ]


def _weighted(rows: Sequence[Demonstration], weight: float, rng: random.Random) -> list[Demonstration]:
    """All rows, repeated `weight` times; for a fractional part, that share of the rows is drawn once more."""
    whole, fraction = divmod(weight, 1)
    return [*rows] * int(whole) + rng.sample(rows, round(fraction * len(rows)))


def _read(config: DemonstrationsConfig, key: str) -> list[Demonstration]:
    if config.path is None and config.source in BUILTIN:
        traces = make_zero.cold_start_traces(BUILTIN[config.source])
        return [Demonstration(row["problem"], row["response"]) for row in traces]
    if config.path is None and config.source is not None and config.source.startswith("builtin:"):
        raise ConfigError(
            f"{key}.path is not set. Give a file that `r1zero sample` wrote, as in {key}.path=traces.jsonl, or one of "
            f"the built-in {key}.source={', '.join(BUILTIN)}."
        )
    rows = read_rows(config, key)
    origin = str(config.path or config.source)
    present = column_names(rows, origin, "demonstration")
    return read_each(rows, _row_reader(config.columns, present, origin, key), config, key)


def _row_reader(
    columns: DemonstrationColumnsConfig, present: Sequence[str], origin: str, key: str
) -> Callable[[Mapping[str, Any]], Demonstration]:
    """The function that reads a demonstration from a row with these columns."""
    turns = [f"{columns.messages}.{turn}" for turn in (0, 1, 2)]
    if columns.problem in present and columns.response in present:
        return lambda row: Demonstration(required_text(row, columns.problem), required_text(row, columns.response))
    if f"{turns[0]}.content" in present:
        return lambda row: _from_messages(row, turns)
    raise DataError(
        f"{origin} has neither the columns {columns.problem!r} and {columns.response!r} nor {columns.messages!r}; its "
        f"columns are {shown_columns(present)}. Set {key}.columns.problem and {key}.columns.response."
    )


def _from_messages(row: Mapping[str, Any], turns: Sequence[str]) -> Demonstration:
    roles = [row.get(f"{turn}.role") for turn in turns]
    if roles != ["user", "assistant", None]:
        raise DataError(f"the roles of its turns are {[role for role in roles if role]}, not ['user', 'assistant']")
    return Demonstration(required_text(row, f"{turns[0]}.content"), required_text(row, f"{turns[1]}.content"))
