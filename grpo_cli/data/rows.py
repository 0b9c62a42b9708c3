"""The rows of a data set: reading them, checking them and drawing the held-out part."""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from grpo_cli.bounds import override_value
from grpo_cli.config.data import RowsConfig
from grpo_cli.data.sources import Rows, read_hub, read_path
from grpo_cli.errors import ConfigError, DataError

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

MAX_SHOWN = 20  # columns or invalid rows in a message


def read_rows(config: RowsConfig, key: str) -> Rows:
    """The rows of `config.path`, or otherwise of `config.source`, that `config.filter` and `config.exclude` leave.

    The source is not a built-in task. Raises the same errors as `load_problems`.
    """
    if config.path is not None:
        return _filtered(read_path(config.path, config.split, key), config, key)
    if config.source is not None:
        rows = read_hub(config.source, config.subset, config.file, config.revision, config.split, key)
        return _filtered(rows, config, key)
    group = key.partition(".")[0]
    raise ConfigError(f"There is no data: set {key}.path=<file>, or choose a data set, as in {group}=gsm8k.")


def _filtered(rows: Rows, config: RowsConfig, key: str) -> Rows:
    """The rows with the values that the settings want; logs how many there are. Raises DataError if none is left."""
    kept, origin = rows, str(config.path or config.source)
    for setting, conditions, is_wanted in (("filter", config.filter, True), ("exclude", config.exclude, False)):
        for column, given in conditions.items():
            values = {_shown(value) for value in (given if isinstance(given, list) else [given])}
            seen = {_shown(row.get(column)) for row in kept.values()}
            kept = {place: row for place, row in kept.items() if (_shown(row.get(column)) in values) == is_wanted}
            if rows and not kept:
                condition = f"{key}.{setting}.{column}"
                raise DataError(
                    f"{origin}: {condition}={override_value(given)} leaves no row. The values of {column!r} are "
                    f"{shown_columns(sorted(seen))}. Choose among them, or remove the condition with ~{condition}."
                )
    if len(kept) < len(rows):
        settings = " and ".join(f"{key}.{name}" for name in ("filter", "exclude") if getattr(config, name))
        logger.warning("%s: %d of %d rows are left out by %s.", origin, len(rows) - len(kept), len(rows), settings)
    return kept


def _shown(value: Any) -> str:
    """A value as `filter` and `exclude` name it: a missing one is the empty text.

    >>> _shown(True), _shown(3), _shown(None), _shown("Yes")
    ('true', '3', '', 'Yes')
    """
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
    logger.warning(
        "%d of %d rows cannot be used and are left out (%s.max_bad_rows=%d allows it):\n%s",
        *(len(faults), num_rows, key, max_bad_rows, listed),
    )


def draw_heldout(
    items: Sequence[Item], wanted: int | None, usual: int, rng: random.Random, kind: str = "problems"
) -> list[Item]:
    """`wanted` random items to hold out, or `usual` if it is None. From a small data set, a tenth of the items.

    Logs a warning if that changes the number. Raises DataError if there are fewer than two items.
    """
    if len(items) < 2:
        raise DataError(
            f"At least 2 {kind} are needed, one to hold out and one to train on. The data have {len(items)}."
        )
    tenth = max(1, len(items) // 10)
    if wanted is not None and wanted > len(items) // 2:
        logger.warning(
            "Holding out %d of %d %s, a tenth: data.num_heldout=%d is more than half.", tenth, len(items), kind, wanted
        )
        wanted = tenth
    elif wanted is None and tenth < usual:
        logger.warning(
            "Holding out %d of %d %s, a tenth. data.num_heldout sets another number.", tenth, len(items), kind
        )
    return rng.sample(items, wanted or min(usual, tenth))
