"""Problems for training and evaluation, from the rows of a data set or from a built-in task."""

import difflib
import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from grpo_cli.choices import Grader
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig, DataConfig, SourceConfig
from grpo_cli.data import make_zero, make_zero_general
from grpo_cli.data.rows import check_faults, column_names, draw_heldout, missing_column, read_rows
from grpo_cli.data.sources import Rows, unflatten
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.nearest import did_you_mean
from grpo_cli.types import Columns, Problem

logger = logging.getLogger(__name__)

BUILTIN = {"builtin:make_zero": make_zero, "builtin:make_zero_general": make_zero_general}
USUAL_NAMES = {
    "problem": ("question", "prompt", "query", "text", "input", "instruction"),
    "answer": ("ground_truth", "final_answer", "gt_answer", "gold", "target", "result", "output", "solution"),
}


@dataclass(frozen=True)
class ProblemSet:
    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]  # their texts do not occur in `train`


def load_problem_set(config: DataConfig, seed: int) -> ProblemSet:
    """All problems; `config.num_heldout` random ones, all with a checkable answer, are held out.

    A built-in task has its own held-out problems to draw from. Raises the same errors as `load_problems`, and DataError
    if more than half of the problems would be held out.
    """
    rng = random.Random(seed)
    if task := builtin_task(config, "data"):
        heldout = task.heldout_problems()
        if config.num_heldout > len(heldout):
            raise DataError(
                f"data.num_heldout={config.num_heldout}, but {config.source} has only {len(heldout)} held-out "
                f"problems. Set data.num_heldout={len(heldout)} or less."
            )
        return ProblemSet(_within_pass_rate(task.problems(), config), tuple(rng.sample(heldout, config.num_heldout)))

    problems = load_problems(config, config.name, "data")
    heldout = tuple(draw_heldout(checkable(problems), config.num_heldout, rng, "problems with a checkable answer"))
    # By text: a problem that occurs twice in the data set must not be on both sides.
    heldout_texts = {problem.text for problem in heldout}
    return ProblemSet(_within_pass_rate([p for p in problems if p.text not in heldout_texts], config), heldout)


def checkable(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with an answer that a rule can check; accuracy is computed only on these.

    Raises DataError if there are none.
    """
    found = [problem for problem in problems if problem.grader != Grader.model]
    if not found:
        raise DataError("Every problem has the grader `model`. Add some with a checkable answer to measure accuracy.")
    return found


def _within_pass_rate(problems: Sequence[Problem], config: DataConfig) -> tuple[Problem, ...]:
    """The problems whose share of right answers, according to `r1zero analyze`, is within `config.pass_rate`."""
    if config.pass_rate is None or config.pass_rates is None:
        return tuple(problems)
    path = Path(config.pass_rates).expanduser()
    rows = read_jsonl(path, _pass_rate, "Set data.pass_rates to a file that `r1zero analyze` wrote.")
    check_unique(path, {number: id for number, (id, _) in rows.items()}, "the pass rate of")
    rates = dict(rows.values())
    lowest, highest = config.pass_rate
    kept = tuple(problem for problem in problems if lowest <= rates.get(problem.id, -1) <= highest)
    logger.warning(
        "Training on %d of %d problems: data.pass_rate=%s leaves out %d, and %d have no pass rate.",
        *(len(kept), len(problems), list(config.pass_rate)),
        *(sum(p.id in rates for p in problems) - len(kept), sum(p.id not in rates for p in problems)),
    )
    if not kept:
        raise DataError(
            f"data.pass_rate={list(config.pass_rate)} leaves no problem to train on. Widen it, or run `r1zero analyze` "
            "on the training problems."
        )
    return kept


def _pass_rate(row: Mapping[str, Any]) -> tuple[str, float]:
    if not isinstance(row["pass_rate"], int | float) or not 0 <= row["pass_rate"] <= 1:
        raise ValueError(f"pass_rate is {row['pass_rate']!r}, and must be a number from 0 to 1")
    return str(row["id"]), row["pass_rate"]


def load_problems(config: SourceConfig, name: str, key: str) -> list[Problem]:
    """All problems of `config.path`, or otherwise of `config.source`, in the order of the source.

    A row without an id gets the id `<name>-<number>`. `key` is the prefix of the settings in messages, such as "data".
    Raises DataError for invalid data, ConfigError for an invalid setting, and SetupError if the hub cannot be reached.
    """
    if task := builtin_task(config, key):
        return task.problems()
    return to_problems(read_rows(config, key), config, name, key)


def builtin_task(config: SourceConfig, key: str) -> ModuleType | None:
    """The module of the built-in task, or None if the data come from elsewhere."""
    if config.path is not None or config.source is None or not config.source.startswith("builtin:"):
        return None
    if config.source not in BUILTIN:
        raise ConfigError(f"{key}.source={config.source}: the built-in tasks are {' and '.join(BUILTIN)}.")
    return BUILTIN[config.source]


def to_problems(rows: Rows, config: SourceConfig, name: str, key: str) -> list[Problem]:
    """The problems in the rows, read from the columns that `config` names for their origin.

    Raises DataError if a column is missing or more than `config.max_bad_rows` rows are invalid.
    """
    if config.path is not None:
        origin, columns, setting = config.path, config.columns, f"{key}.columns"
    else:
        origin, columns, setting = str(config.source), config.source_columns, f"{key}.source_columns"
    present = column_names(rows, origin, "problem")
    for role in ("problem", "answer"):
        if (wanted := getattr(columns, role)) not in present:
            advice = _column_advice(role, columns, present, setting, config, key)
            raise DataError(f"{origin} {missing_column(wanted, present)} {advice}")
    pattern = _compile(columns.answer_pattern, setting)
    extra_names = _extra_names(columns, present, origin, setting)

    problems, faults = [], []
    places: dict[str, list[str]] = {}  # by id
    for number, (place, row) in enumerate(rows.items(), start=1):
        try:
            text = _to_text(row.get(columns.problem), columns.problem)
            grader = _grader(row.get(columns.grader) if columns.grader else None, config, setting)
            is_general = grader == Grader.model and row.get(columns.answer) in (None, "")
            answer = "" if is_general else _to_text(row.get(columns.answer), columns.answer)
            if pattern and not is_general:
                answer = _extract_answer(answer, pattern)
        except DataError as fault:
            faults.append(f"{origin}, {place}: {fault}")
            continue
        problem_id = row.get(columns.id) if columns.id else None
        problem_id = f"{name}-{number}" if problem_id is None else str(problem_id)
        places.setdefault(problem_id, []).append(place)
        problems.append(Problem(problem_id, text, answer, str(grader), _extra(row, extra_names)))
    check_faults(faults, len(rows), config.max_bad_rows, key)

    repeated, found = max(places.items(), key=lambda item: len(item[1]))
    if len(found) > 1:
        raise DataError(
            f"{origin}: {len(found)} rows have the same id {repeated!r} in the column {columns.id!r}, for example "
            f"{' and '.join(found[:2])}. Set {setting}.id to another column, or {setting}.id=null to number the rows."
        )
    return problems


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


def _column_advice(
    role: str, columns: ColumnsConfig, present: list[str], setting: str, config: SourceConfig, key: str
) -> str:
    hub = config.source_columns
    if config.source and hub != columns and {hub.problem, hub.answer} <= set(present):
        return f"It looks like a copy of {config.source}: set '{key}.columns=${{{key}.source_columns}}'."
    unused = [name for name in present if name not in (columns.problem, columns.answer)]
    words = {word: name for name in reversed(unused) for word in (*name.lower().split("."), name)}
    similar = difflib.get_close_matches(getattr(columns, role), words, n=1)
    guess = next((words[word] for word in (*similar, role, *USUAL_NAMES[role]) if word in words), "<column>")
    return f"Set {setting}.{role}={guess}."


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


def _compile(pattern: str | None, setting: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as fault:
        raise ConfigError(f"{setting}.answer_pattern={pattern!r} is not a valid regular expression: {fault}.") from None
    if not compiled.groups:
        raise ConfigError(
            f"{setting}.answer_pattern={pattern!r} has no group. Put parentheses around the answer, as in '#### (.+)'."
        )
    return compiled


def _extract_answer(answer: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(answer)
    if match is None or not (match[1] or "").strip():
        raise DataError(f"answer_pattern {pattern.pattern!r} does not match the answer {answer[-60:]!r}")
    return match[1].strip()


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
