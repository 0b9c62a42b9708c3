"""Preferences: a better and a worse response to the same problem, read from the rows of a data set."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpo_cli.config.examples import NUM_HELDOUT, PreferencesConfig
from grpo_cli.data.rows import column_names, draw_heldout, missing_column, read_each, read_rows, required_text
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
    heldout: tuple[Preference, ...]  # their problems do not occur in `train`


def load_preferences(config: PreferencesConfig, seed: int) -> PreferenceSet:
    """All pairs; those of the random problems that `draw_heldout` gives are held out.

    Raises DataError for invalid data and SetupError if the Hub cannot be reached.
    """
    pairs = _read(config)
    problems = list(dict.fromkeys(pair.problem for pair in pairs))
    heldout = set(draw_heldout(problems, config.num_heldout, NUM_HELDOUT, random.Random(seed)))
    return PreferenceSet(
        train=tuple(pair for pair in pairs if pair.problem not in heldout),
        heldout=tuple(pair for pair in pairs if pair.problem in heldout),
    )


def _read(config: PreferencesConfig) -> list[Preference]:
    rows = read_rows(config, "data")
    origin = str(config.path or config.source)
    present = column_names(rows, origin, "pair of responses")
    for role in ROLES:
        if (column := getattr(config.columns, role)) not in present:
            raise DataError(f"{origin} {missing_column(column, present)} Set data.columns.{role}=<column>.")
    return read_each(rows, lambda row: _pair(row, config), config, "data")


def _pair(row: Mapping[str, Any], config: PreferencesConfig) -> Preference:
    texts = {role: required_text(row, getattr(config.columns, role)) for role in ROLES}
    if texts["chosen"] == texts["rejected"]:
        raise DataError("both responses are the same")
    return Preference(**texts)
