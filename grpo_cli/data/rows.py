"""The rows of a data set: reading them, checking them and drawing the held-out part."""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from grpo_cli.config.data import RowsConfig
from grpo_cli.data.sources import Rows, read_hub, read_path
from grpo_cli.errors import ConfigError, DataError

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

MAX_SHOWN = 20  # columns or invalid rows in a message


def read_rows(config: RowsConfig, key: str) -> Rows:
    """The rows of `config.path`, or otherwise of `config.source`, which is not a built-in task.

    Raises the same errors as `load_problems`.
    """
    if config.path is not None:
        return read_path(config.path, config.split, key)
    if config.source is not None:
        return read_hub(config.source, config.subset, config.file, config.revision, config.split, key)
    group = key.partition(".")[0]
    raise ConfigError(f"There is no data: set {key}.path=<file>, or choose a data set, as in {group}=gsm8k.")


def column_names(rows: Rows, origin: str, kind: str) -> list[str]:
    """All columns of the rows. Raises DataError if there are no rows."""
    if not rows:
        raise DataError(f"{origin} is empty. Give a data set with at least one {kind}.")
    return list(dict.fromkeys(column for row in rows.values() for column in row))


def shown_columns(present: Sequence[str]) -> str:
    """The first columns, for a message."""
    return ", ".join(map(repr, present[:MAX_SHOWN])) + " ..." * (len(present) > MAX_SHOWN)


def missing_column(column: str, present: Sequence[str]) -> str:
    return f"has no column {column!r}; its columns are {shown_columns(present)}."


def read_each(rows: Rows, read: Callable[[Mapping[str, Any]], Item], config: RowsConfig, key: str) -> list[Item]:
    """The results of `read`, which raises DataError for an invalid row.

    Raises DataError if more than `config.max_bad_rows` rows are invalid.
    """
    items, faults = [], []
    for place, row in rows.items():
        try:
            items.append(read(row))
        except DataError as fault:
            faults.append(f"{config.path or config.source}, {place}: {fault}")
    check_faults(faults, len(rows), config.max_bad_rows, key)
    return items


def required_text(row: Mapping[str, Any], column: str) -> str:
    """The unchanged text in a column. Raises DataError if there is none."""
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{column!r} is missing or empty")
    if not isinstance(value, str):
        raise DataError(f"{column!r} must be text, not {type(value).__name__}")
    return value


def check_faults(faults: list[str], num_rows: int, max_bad_rows: int, key: str) -> None:
    """Raise DataError if more than `max_bad_rows` rows, or all, are invalid; log a warning for fewer."""
    if not faults:
        return
    listed = "\n".join(faults[:MAX_SHOWN] + ["..."] * (len(faults) > MAX_SHOWN))
    if len(faults) == num_rows:
        raise DataError(f"None of {num_rows} rows can be used:\n{listed}\nSee {key}.columns.")
    if len(faults) > max_bad_rows:
        raise DataError(
            f"{len(faults)} of {num_rows} rows cannot be used:\n{listed}\n"
            f"Fix them, or leave them out with {key}.max_bad_rows={len(faults)}."
        )
    logger.warning("%d of %d rows cannot be used and are left out:\n%s", len(faults), num_rows, listed)


def draw_heldout(items: Sequence[Item], count: int, rng: random.Random, kind: str = "problems") -> list[Item]:
    """`count` random items to hold out. Raises DataError if they are more than half of all."""
    if count > len(items) // 2:
        raise DataError(
            f"data.num_heldout={count} would keep more than half of {len(items)} {kind} out of training. Set "
            f"data.num_heldout={len(items) // 10 or len(items) // 2}, for example, or use more data."
        )
    return rng.sample(items, count)
