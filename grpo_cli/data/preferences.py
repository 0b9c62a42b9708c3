"""Preferences: two responses to a problem, the better named, from the rows of a data set."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpo_cli.config.examples import PreferencesConfig
from grpo_cli.data.problems import MAX_SHOWN, given_text, read_each, read_rows
from grpo_cli.errors import DataError

ROLES = ("problem", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Preference:
    problem: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PreferenceSet:
    train: tuple[Preference, ...]
    heldout: tuple[Preference, ...]  # on no problem that is in `train`


def load_preferences(config: PreferencesConfig, seed: int) -> PreferenceSet:
    """All pairs; those on `config.num_heldout` problems, drawn by `seed`, are kept out of training.

    Raises DataError for a fault of the data and SetupError where the hub cannot be reached.
    """
    pairs = _read(config)
    problems = list(dict.fromkeys(pair.problem for pair in pairs))
    if config.num_heldout > len(problems) // 2:
        raise DataError(
            f"data.num_heldout={config.num_heldout} would keep more than half of {len(problems)} problems out of "
            f"training. Set data.num_heldout={max(1, len(problems) // 10)}, for example, or give more pairs."
        )
    heldout = set(random.Random(seed).sample(problems, config.num_heldout))
    return PreferenceSet(
        train=tuple(pair for pair in pairs if pair.problem not in heldout),
        heldout=tuple(pair for pair in pairs if pair.problem in heldout),
    )


def _read(config: PreferencesConfig) -> list[Preference]:
    rows = read_rows(config, "data")
    origin = config.path or config.source
    if not rows:
        raise DataError(f"{origin} is empty. Give a data set with at least one pair of responses.")
    present = list(dict.fromkeys(column for row in rows.values() for column in row))
    for role in ROLES:
        if (column := getattr(config.columns, role)) not in present:
            shown = ", ".join(map(repr, present[:MAX_SHOWN])) + (" ..." if len(present) > MAX_SHOWN else "")
            raise DataError(
                f"{origin} has no column {column!r}; its columns are {shown}. Set data.columns.{role}=<column>."
            )
    return read_each(rows, lambda row: _pair(row, config), config, "data")


def _pair(row: Mapping[str, Any], config: PreferencesConfig) -> Preference:
    texts = {role: given_text(row, getattr(config.columns, role)) for role in ROLES}
    if texts["chosen"] == texts["rejected"]:
        raise DataError("both responses are the same")
    return Preference(**texts)
