"""Demonstrations: problems with responses that are to be learned, from the rows of data sets."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_cli.config.examples import DemonstrationColumnsConfig, DemonstrationsConfig, SFTDataConfig, typed_mix
from grpo_cli.data import make_zero
from grpo_cli.data.problems import MAX_SHOWN, given_text, read_each, read_rows
from grpo_cli.errors import ConfigError, DataError

# How the cold-start responses of each built-in model write totals.
BUILTIN = {
    "builtin:tiny": make_zero.say_symbol,
    "builtin:tiny_mixed": make_zero.say_in_english,
    "builtin:tiny_half": make_zero.say_symbol,
}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A problem, as a template takes it, and the response that follows the prompt."""

    problem: str
    response: str


@dataclass(frozen=True)
class DemonstrationSet:
    train: tuple[Demonstration, ...]  # each as often as it is seen in an epoch
    heldout: tuple[Demonstration, ...]  # to no problem that is in `train`


def load_demonstrations(config: SFTDataConfig, seed: int) -> DemonstrationSet:
    """All data sets, mixed by their weights, with `config.num_heldout` problems of the first, drawn by `seed`, kept
    out of all of them.

    Raises DataError for a fault of the data and SetupError where the hub cannot be reached.
    """
    draw = random.Random(seed)
    own = _read(config, "data")
    problems = list(dict.fromkeys(demonstration.problem for demonstration in own))
    if config.num_heldout > len(problems) // 2:
        raise DataError(
            f"data.num_heldout={config.num_heldout} would keep more than half of {len(problems)} problems out of "
            f"training. Set data.num_heldout={len(problems) // 10}, for example."
        )
    heldout = set(draw.sample(problems, config.num_heldout))
    train = []
    for some, weight in [(own, config.weight)] + [
        (_read(other, f"data.mix.{name}"), other.weight) for name, other in sorted(typed_mix(config.mix).items())
    ]:
        train += _weighted([d for d in some if d.problem not in heldout], weight, draw)
    if not train:
        raise DataError("No demonstration is left to train on. Raise data.weight, or lower data.num_heldout.")
    return DemonstrationSet(tuple(train), tuple(d for d in own if d.problem in heldout))


def _weighted(rows: Sequence[Demonstration], weight: float, draw: random.Random) -> list[Demonstration]:
    """Each row `weight` times; of its fraction, so many rows once more."""
    whole, fraction = divmod(weight, 1)
    return [*rows] * int(whole) + draw.sample(rows, round(fraction * len(rows)))


def _read(config: DemonstrationsConfig, key: str) -> list[Demonstration]:
    if config.path is None and config.source in BUILTIN:
        traces = make_zero.cold_start_traces(BUILTIN[config.source])
        return [Demonstration(row["problem"], row["response"]) for row in traces]
    if config.path is None and config.source is not None and config.source.startswith("builtin:"):
        raise ConfigError(
            f"{key}.path is not set. Give a file that `r1zero sample` wrote, as in {key}.path=traces.jsonl; built in "
            f"as {key}.source are {', '.join(BUILTIN)}."
        )
    rows = read_rows(config, key)
    origin = config.path or config.source
    if not rows:
        raise DataError(f"{origin} is empty. Give a data set with at least one demonstration.")
    present = list(dict.fromkeys(column for row in rows.values() for column in row))
    return read_each(rows, _reader(config.columns, present, origin, key), config, key)


def _reader(columns: DemonstrationColumnsConfig, present: Sequence[str], origin: str, key: str):
    """What makes a demonstration of a row, by the columns that there are."""
    turns = [f"{columns.messages}.{turn}" for turn in (0, 1, 2)]
    if columns.problem in present and columns.response in present:
        return lambda row: Demonstration(given_text(row, columns.problem), given_text(row, columns.response))
    if f"{turns[0]}.content" in present:
        return lambda row: _of_messages(row, turns)
    shown = ", ".join(map(repr, present[:MAX_SHOWN])) + (" ..." if len(present) > MAX_SHOWN else "")
    raise DataError(
        f"{origin} has neither the columns {columns.problem!r} and {columns.response!r} nor {columns.messages!r}; its "
        f"columns are {shown}. Set {key}.columns.problem and {key}.columns.response."
    )


def _of_messages(row: Mapping[str, Any], turns: Sequence[str]) -> Demonstration:
    roles = [row.get(f"{turn}.role") for turn in turns]
    if roles != ["user", "assistant", None]:
        raise DataError(f"its turns are by {[role for role in roles if role]}, where user and assistant are needed")
    return Demonstration(given_text(row, f"{turns[0]}.content"), given_text(row, f"{turns[1]}.content"))
