"""Problems for training and evaluation, from the rows of a data set or from a built-in task."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

from grpo_cli.choices import Grader
from grpo_cli.config.data import NUM_HELDOUT, BenchmarkConfig, ColumnsConfig, DataConfig, SourceConfig
from grpo_cli.data import make_zero, make_zero_general, make_zero_sizes
from grpo_cli.data.layouts import Reading, choose_reading
from grpo_cli.data.pass_rates import within_pass_rate
from grpo_cli.data.rows import check_faults, column_names, draw_heldout, missing_column, read_rows
from grpo_cli.data.sources import Rows, unflatten
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.nearest import did_you_mean
from grpo_cli.types import Columns, Problem

logger = logging.getLogger(__name__)

BUILTIN = {
    "builtin:make_zero": make_zero,
    "builtin:make_zero_general": make_zero_general,
    "builtin:make_zero_sizes": make_zero_sizes,
}
# Tests and numbers to combine, which are used as they are.
NOT_MARKED = (Grader.code, Grader.expression)


@dataclass(frozen=True)
class ProblemSet:
    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]  # their texts do not occur in `train`


def load_problem_set(config: DataConfig, seed: int) -> ProblemSet:
    """All problems; those that `draw_heldout` gives, all with a checkable answer, are held out.

    A built-in task has its own held-out problems to draw from. Raises the same errors as `load_problems`.
    """
    rng = random.Random(seed)
    if task := builtin_task(config, "data"):
        heldout, wanted = task.heldout_problems(), config.num_heldout or NUM_HELDOUT
        if wanted > len(heldout):
            logger.warning(
                "data.num_heldout=%d: %s has %d held-out problems, and all are used.",
                *(wanted, config.source, len(heldout)),
            )
        drawn = rng.sample(heldout, min(wanted, len(heldout)))
        return ProblemSet(within_pass_rate(task.problems(), config), tuple(drawn))

    problems = load_problems(config, config.name, "data")
    candidates = checkable(problems)
    kind = "problems" if len(candidates) == len(problems) else "problems with a checkable answer"
    heldout = tuple(draw_heldout(candidates, config.num_heldout, NUM_HELDOUT, rng, kind))
    # By text: a problem that occurs twice in the data set must not be on both sides.
    heldout_texts = {problem.text for problem in heldout}
    if not (rest := [problem for problem in problems if problem.text not in heldout_texts]):
        raise DataError(
            f"No problem is left to train on: each of the {len(problems)} has the same text as a held-out one. Use "
            "data with more different problems."
        )
    return ProblemSet(within_pass_rate(rest, config), heldout)


def checkable(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with an answer that a rule can check; accuracy is computed only on these.

    Raises DataError if there are none.
    """
    found = [problem for problem in problems if problem.grader != Grader.model]
    if not found:
        raise DataError("Every problem has the grader `model`. Add some with a checkable answer to measure accuracy.")
    return found


def load_problems(config: SourceConfig, name: str, key: str) -> list[Problem]:
    """All problems of `config.path`, or otherwise of `config.source`, in the order of the source.

    A row without an id gets the id `<name>-<number>`. `key` is the prefix of the settings in messages, such as "data".
    Raises DataError for invalid data, ConfigError for an invalid setting, and SetupError if the Hub cannot be reached.
    """
    if task := builtin_task(config, key):
        return task.problems()
    return to_problems(read_rows(config, key), config, name, key)


def builtin_task(config: SourceConfig, key: str) -> ModuleType | None:
    """The module of the built-in task, or None if the data come from elsewhere."""
    if config.path is not None or config.source is None or not config.source.startswith("builtin:"):
        return None
    if config.source not in BUILTIN:
        raise ConfigError(f"{key}.source={config.source}: the built-in tasks are {', '.join(BUILTIN)}.")
    return BUILTIN[config.source]


def to_problems(rows: Rows, config: SourceConfig, name: str, key: str) -> list[Problem]:
    """The problems in the rows, read as `choose_reading` says. Logs a warning if that is not from configured columns.

    Raises DataError if a column is missing or more than `config.max_bad_rows` rows are invalid.
    """
    origin = str(config.path or config.source)
    present = column_names(rows, origin, "problem")
    reading = choose_reading(present, origin, config, key)
    columns, setting = reading.columns, reading.setting
    extra_names = _extra_names(
        columns, present, origin, f"{key}.{'source_columns' if config.path is None else 'columns'}"
    )
    problems, faults, num_marked = [], [], 0
    places: dict[str, list[str]] = {}  # by id
    for number, (place, row) in enumerate(rows.items(), start=1):
        try:
            text = _to_text(reading.problem(row), columns.problem)
            grader = _grader(row.get(columns.grader) if columns.grader else None, config, setting)
            given = reading.answer(row)
            is_general = grader == Grader.model and given in (None, "")
            given = "" if is_general else _to_text(given, columns.answer)
            answer = reading.gold(given) if given and grader not in NOT_MARKED else given
        except DataError as fault:
            faults.append(f"{origin}, {place}: {fault}")
            continue
        num_marked += answer != given
        problem_id = row.get(columns.id) if columns.id else None
        problem_id = f"{name}-{number}" if problem_id is None else str(problem_id)
        places.setdefault(problem_id, []).append(place)
        problems.append(Problem(problem_id, text, answer, str(grader), _extra(row, extra_names)))
    check_faults(faults, len(rows), config.max_bad_rows, key)
    _report(reading, num_marked, origin)

    repeated, found = max(places.items(), key=lambda item: len(item[1]))
    if len(found) > 1:
        raise DataError(
            f"{origin}: {len(found)} rows have the same id {repeated!r} in the column {columns.id!r}, for example "
            f"{' and '.join(found[:2])}. Set {setting}.id to another column, or {setting}.id=null to number the rows."
        )
    return problems


def _report(reading: Reading, num_marked: int, origin: str) -> None:
    """Log in one line what was recognised, if anything was."""
    found = [f"problems and answers are read from {reading.sources}"] if reading.sources else []
    if num_marked and reading.columns.answer_pattern is None:
        found.append(rf"{num_marked} answers are taken out of texts that mark them, as in #### 72 or \boxed{{72}}")
    if found:
        logger.warning("%s: %s.", origin, "; ".join(found))


def _grader(named: Any, config: SourceConfig, setting: str) -> Grader:
    """The grader that the row names, or otherwise that of the data set."""
    if named is not None and named not in list(Grader):
        raise DataError(
            f"the grader is {named!r}, and must be one of {', '.join(Grader)} ({setting}.grader=null ignores it)"
        )
    grader = Grader(named or config.grader)
    if grader == Grader.model and isinstance(config, BenchmarkConfig):
        raise DataError("the grader is 'model', but a benchmark needs answers that a rule can check")
    return grader


def _extra_names(columns: ColumnsConfig, present: list[str], origin: str, setting: str) -> list[str]:
    """The columns for reward functions, whole ones: not each value in a list. Raises DataError if one is missing."""
    whole = list(dict.fromkeys(column.partition(".")[0] for column in present))
    if columns.extra == "all":
        return whole
    for column in columns.extra:
        if column not in (*present, *whole):
            raise DataError(
                f"{origin} {missing_column(column, present)}{did_you_mean(column, present)} Correct {setting}.extra, "
                f"or set {setting}.extra=all."
            )
    return list(columns.extra)


def _extra(row: Mapping[str, Any], names: Sequence[str]) -> Columns:
    """The row's values in these columns, None where it has none."""
    whole = unflatten(row) if names else {}
    return Columns({name: row[name] if name in row else whole.get(name) for name in names})


def _to_text(value: Any, column: str) -> str:
    """The value as text; numbers in usual notation: 142.0 becomes `142` and 1e-08 becomes `0.00000001`.

    Raises DataError if it is neither text nor a finite number.
    """
    if isinstance(value, float | Decimal):
        number = Decimal(str(value))
        if not number.is_finite():
            raise DataError(f"{column!r} must be a finite number, not {value}")
        value = int(number) if number == int(number) else format(number, "f")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise DataError(f"{column!r} must be text or a number, not {type(value).__name__}")
    text = "" if value is None else str(value).strip()
    if not text:
        raise DataError(f"{column!r} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{column!r} contains half of a surrogate pair, which is not a valid character")
    return text
