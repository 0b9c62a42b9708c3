"""Problems to train on and to evaluate on, from the rows of a data set or from a built-in task."""

import difflib
import logging
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from grpo_cli.choices import Grader
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig, DataConfig, RowsConfig, SourceConfig
from grpo_cli.data import make_zero, make_zero_general
from grpo_cli.data.sources import Rows, read_hub, read_path
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.types import Problem

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

BUILTIN = {"builtin:make_zero": make_zero, "builtin:make_zero_general": make_zero_general}
MAX_SHOWN = 20  # columns or faulty rows in a message
USUAL_NAMES = {
    "problem": ("question", "prompt", "query", "text", "input", "instruction"),
    "answer": ("ground_truth", "final_answer", "gt_answer", "gold", "target", "result", "output", "solution"),
}


@dataclass(frozen=True)
class ProblemSet:
    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]  # no problem here has its text in `train`


def load_problem_set(config: DataConfig, seed: int) -> ProblemSet:
    """All problems, with `config.num_heldout` of them, drawn by `seed`, kept out of training: of those with a checkable
    answer.

    A built-in task draws from held-out problems of its own. Raises as `load_problems` does, and DataError
    where more than half of the problems would be held out.
    """
    draw = random.Random(seed)
    if task := builtin_task(config, "data"):
        heldout = task.heldout_problems()
        if config.num_heldout > len(heldout):
            raise DataError(
                f"data.num_heldout={config.num_heldout}, and {config.source} has {len(heldout)} held-out "
                f"problems. Set data.num_heldout={len(heldout)} or less."
            )
        return ProblemSet(_of_pass_rate(task.problems(), config), tuple(draw.sample(heldout, config.num_heldout)))

    problems = load_problems(config, config.name, "data")
    judged = checkable(problems)
    if config.num_heldout > len(judged) // 2:
        raise DataError(
            f"data.num_heldout={config.num_heldout} would keep more than half of {len(judged)} problems with a "
            f"checkable answer out of training. Set data.num_heldout={len(judged) // 10}, for example."
        )
    heldout = tuple(draw.sample(judged, config.num_heldout))
    # By text: a problem that the data set holds twice must not be on both sides.
    heldout_texts = {problem.text for problem in heldout}
    return ProblemSet(_of_pass_rate([p for p in problems if p.text not in heldout_texts], config), heldout)


def checkable(problems: Sequence[Problem]) -> list[Problem]:
    """Those that a rule can judge: accuracy is told of no other. Raises DataError where there are none."""
    judged = [problem for problem in problems if problem.grader != Grader.model]
    if not judged:
        raise DataError("Every problem has the grader `model`. Add some with a checkable answer, to tell accuracy by.")
    return judged


def _of_pass_rate(problems: Sequence[Problem], config: DataConfig) -> tuple[Problem, ...]:
    """Those whose share of right answers, in the file of `r1zero analyze`, is within `config.pass_rate`."""
    if config.pass_rate is None:
        return tuple(problems)
    path = Path(config.pass_rates).expanduser()
    rows = read_jsonl(path, _pass_rate, "Give data.pass_rates a file that `r1zero analyze` wrote.")
    check_unique(path, {number: id for number, (id, _) in rows.items()}, "the pass rate of")
    rates = dict(rows.values())
    lowest, highest = config.pass_rate
    kept = tuple(problem for problem in problems if lowest <= rates.get(problem.id, -1) <= highest)
    logger.warning(
        "%d of %d problems are trained on: data.pass_rate=%s leaves out %d, and %d have no pass rate.",
        *(len(kept), len(problems), list(config.pass_rate)),
        *(sum(p.id in rates for p in problems) - len(kept), sum(p.id not in rates for p in problems)),
    )
    if not kept:
        raise DataError(
            f"data.pass_rate={list(config.pass_rate)} leaves no problem to train on. Widen it, or analyze the problems "
            "that are trained on."
        )
    return kept


def _pass_rate(row: Mapping[str, Any]) -> tuple[str, float]:
    if not isinstance(row["pass_rate"], int | float) or not 0 <= row["pass_rate"] <= 1:
        raise ValueError(f"pass_rate is {row['pass_rate']!r}, and must be a share from 0 to 1")
    return str(row["id"]), row["pass_rate"]


def load_problems(config: SourceConfig, name: str, key: str) -> list[Problem]:
    """Every problem of `config.path`, else of the split of `config.source`, in the order of the source.

    A row without an id is called `<name>-<number>`. `key` is where the settings stand, such as "data". Raises
    DataError for a fault of the data, ConfigError for a setting that cannot work, and SetupError where the hub
    cannot be reached.
    """
    if task := builtin_task(config, key):
        return task.problems()
    return to_problems(read_rows(config, key), config, name, key)


def builtin_task(config: SourceConfig, key: str) -> ModuleType | None:
    """The module of the built-in task, or None where the data come from elsewhere."""
    if config.path is not None or config.source is None or not config.source.startswith("builtin:"):
        return None
    if config.source not in BUILTIN:
        raise ConfigError(f"{key}.source={config.source}: the built-in tasks are {' and '.join(BUILTIN)}.")
    return BUILTIN[config.source]


def read_rows(config: SourceConfig, key: str) -> Rows:
    """The rows of `config.path`, else of `config.source`, which is no built-in task. Raises as `load_problems` does."""
    if config.path is not None:
        return read_path(config.path, config.split, key)
    if config.source is not None:
        return read_hub(config.source, config.subset, config.file, config.revision, config.split, key)
    group = key.partition(".")[0]
    raise ConfigError(f"There is no data: set {key}.path=<file>, or choose a data set, as in {group}=gsm8k.")


def to_problems(rows: Rows, config: SourceConfig, name: str, key: str) -> list[Problem]:
    """The rows as problems, by the columns that `config` names for where they come from."""
    if config.path is not None:
        origin, columns, setting = config.path, config.columns, f"{key}.columns"
    else:
        origin, columns, setting = config.source, config.source_columns, f"{key}.source_columns"
    if not rows:
        raise DataError(f"{origin} is empty. Give a data set with at least one problem.")
    present = list(dict.fromkeys(column for row in rows.values() for column in row))
    for role in ("problem", "answer"):
        if getattr(columns, role) not in present:
            raise DataError(f"{origin} {_missing_column(role, columns, present, setting, config, key)}")
    pattern = _compile(columns.answer_pattern, setting)

    problems, faults = [], []
    places: dict[str, list[str]] = {}  # of each id
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
        problems.append(Problem(problem_id, text, answer, str(grader)))
    check_faults(faults, len(rows), config.max_bad_rows, key)

    repeated, found = max(places.items(), key=lambda item: len(item[1]))
    if len(found) > 1:
        raise DataError(
            f"{origin}: {len(found)} rows have the id {repeated!r} in the column {columns.id!r}, such as "
            f"{' and '.join(found[:2])}, and ids must differ. Set {setting}.id to another column, or {setting}.id=null "
            "to number the rows."
        )
    return problems


def _grader(named: Any, config: SourceConfig, setting: str) -> Grader:
    """What the row names, else what the data set does."""
    if named is not None and named not in list(Grader):
        raise DataError(
            f"the grader is {named!r}, and must be one of {', '.join(Grader)} ({setting}.grader=null reads none)"
        )
    grader = Grader(named or config.grader)
    if grader == Grader.model and isinstance(config, BenchmarkConfig):
        raise DataError("the grader is 'model', and a benchmark needs answers that a rule can check")
    return grader


def _missing_column(
    role: str, columns: ColumnsConfig, present: list[str], setting: str, config: SourceConfig, key: str
) -> str:
    wanted, hub = getattr(columns, role), config.source_columns
    shown = ", ".join(map(repr, present[:MAX_SHOWN])) + (" ..." if len(present) > MAX_SHOWN else "")
    seen = f"has no column {wanted!r}; its columns are {shown}."
    if config.source and hub != columns and {hub.problem, hub.answer} <= set(present):
        return f"{seen} It looks like a copy of {config.source}: set '{key}.columns=${{{key}.source_columns}}'."
    free = [name for name in present if name not in (columns.problem, columns.answer)]
    words = {word: name for name in reversed(free) for word in (*name.lower().split("."), name)}
    near = difflib.get_close_matches(wanted, words, n=1)
    guess = next((words[word] for word in (*near, role, *USUAL_NAMES[role]) if word in words), "<column>")
    return f"{seen} Set {setting}.{role}={guess}."


def read_each(rows: Rows, read: Callable[[Mapping[str, Any]], Item], config: RowsConfig, key: str) -> list[Item]:
    """What `read` makes of each row; it raises DataError for one that cannot be used."""
    items, faults = [], []
    for place, row in rows.items():
        try:
            items.append(read(row))
        except DataError as fault:
            faults.append(f"{config.path or config.source}, {place}: {fault}")
    check_faults(faults, len(rows), config.max_bad_rows, key)
    return items


def given_text(row: Mapping[str, Any], column: str) -> str:
    """The text in a column as it stands. Raises DataError where there is none."""
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{column!r} is missing or empty")
    if not isinstance(value, str):
        raise DataError(f"{column!r} is of type {type(value).__name__}, where text is needed")
    return value


def check_faults(faults: list[str], num_rows: int, max_bad_rows: int, key: str) -> None:
    """Raise DataError where more than `max_bad_rows` of the rows are at fault, or all; else warn of those."""
    if not faults:
        return
    listed = "\n".join(faults[:MAX_SHOWN] + ["..."] * (len(faults) > MAX_SHOWN))
    if len(faults) == num_rows:
        raise DataError(f"None of {num_rows} rows can be used:\n{listed}\nSee {key}.columns.")
    if len(faults) > max_bad_rows:
        raise DataError(
            f"{len(faults)} of {num_rows} rows cannot be used:\n{listed}\n"
            f"Mend them, or leave such rows out with {key}.max_bad_rows={len(faults)}."
        )
    logger.warning("%d of %d rows are left out:\n%s", len(faults), num_rows, listed)


def _compile(pattern: str | None, setting: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as fault:
        raise ConfigError(f"{setting}.answer_pattern={pattern!r} is no regular expression: {fault}. Mend it.") from None
    if not compiled.groups:
        raise ConfigError(
            f"{setting}.answer_pattern={pattern!r} has no group. Put the part that is the answer in "
            "parentheses, as in '#### (.+)'."
        )
    return compiled


def _extract_answer(answer: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(answer)
    if match is None or not (match[1] or "").strip():
        raise DataError(f"answer_pattern {pattern.pattern!r} finds nothing in the answer {answer[-60:]!r}")
    return match[1].strip()


def _to_text(value: Any, column: str) -> str:
    """The value as text, a number as one would write it: 142.0 is `142` and 1e-08 is `0.00000001`."""
    if isinstance(value, float | Decimal):
        number = Decimal(str(value))
        if not number.is_finite():
            raise DataError(f"{column!r} is {value}, which is no number")
        value = int(number) if number == int(number) else format(number, "f")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise DataError(f"{column!r} is a {type(value).__name__}, where text or a number is needed")
    text = "" if value is None else str(value).strip()
    if not text:
        raise DataError(f"{column!r} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{column!r} holds half a surrogate pair, which is no character")
    return text
