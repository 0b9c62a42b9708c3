"""A sweep, read from the folders of its jobs: the results of each setting, and the effect of each parameter."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cli.analysis.report import read_metrics
from grpo_cli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

HELDOUT, GREEDY = "eval/heldout/avg", "eval/heldout/greedy"
MAX_ERROR = 500  # characters of an error in a table
# A line that names an exception, as at the end of a traceback.
EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: |$)")


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep."""

    folder: Path
    swept: dict[str, str]  # the values that the sweep set, by full key
    objective: float | None  # final held-out accuracy, or minus the loss for sft; None if it did not finish
    greedy: float | None
    error: str | None  # why it failed, in one line
    tokens: int | None  # generated in training
    seconds: float | None  # of all steps, without start-up
    curve: tuple[tuple[int, float], ...]  # step, held-out accuracy

    @property
    def status(self) -> str:
        if self.objective is not None:
            return "finished"
        return "failed" if self.error else "unfinished"


@dataclass(frozen=True)
class Setting:
    """The jobs that differ only in their seed. Figures are means over the finished ones, None if there is no value."""

    swept: dict[str, str]  # without the seed
    jobs: tuple[SweepJob, ...]
    finished: tuple[SweepJob, ...]
    mean: float | None  # held-out accuracy
    spread: float | None  # its sample standard deviation over seeds
    greedy: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True)
class Effect:
    """The mean result for one value of a swept parameter, over all settings of the others."""

    key: str
    value: str
    mean: float
    num_jobs: int


def read_sweep(folder: Path) -> list[SweepJob]:
    """The jobs of a sweep, in the order of their numbers.

    Raises DataError if there are none, or if a job's record cannot be read.
    """
    records = sorted(folder.glob("*/job.json"), key=lambda record: _natural(record.parent.name))
    if not records:
        raise DataError(
            f"{folder} contains no jobs of a sweep. Give the folder that `r1zero train -m` created, such as "
            "runs/sweeps/2026-11-20_101500_train."
        )
    return [_read_job(record.parent) for record in records]


def rank_settings(jobs: Sequence[SweepJob]) -> list[Setting]:
    """The settings by falling mean held-out accuracy; those without a finished job come last."""
    settings = []
    for _, group in _table(jobs).groupby(swept_keys(jobs) or (lambda _: 0), dropna=False, sort=False):
        finished = group[group.objective.notna()]
        figures = {"mean": finished.objective.mean(), "spread": finished.objective.std()}
        figures |= finished[["greedy", "tokens", "seconds"]].mean()
        swept = {key: value for key, value in group.job.iloc[0].swept.items() if key != "seed"}
        known = {name: None if math.isnan(value) else float(value) for name, value in figures.items()}
        settings.append(Setting(swept, tuple(group.job), tuple(finished.job), **known))
    return sorted(settings, key=lambda setting: (setting.mean is None, -(setting.mean or 0.0)))


def effects(jobs: Sequence[SweepJob]) -> list[Effect]:
    """The mean objective of the finished jobs for each value of each swept parameter except the seed.

    Parameters with a single value, or without a value that several jobs share, are left out: the leaderboard already
    shows their results.
    """
    rows = []
    for key in swept_keys(jobs):
        by_value = _table(jobs).dropna(subset="objective").groupby(key).objective.agg(["mean", "count"])
        if len(by_value) > 1 and by_value["count"].max() > 1:
            values = sorted(by_value.index, key=_natural)
            rows += [Effect(key, value, by_value["mean"][value], by_value["count"][value]) for value in values]
    return rows


def swept_keys(jobs: Sequence[SweepJob]) -> list[str]:
    """Every key that the sweep varied, except the seed."""
    return list(dict.fromkeys(key for job in jobs for key in job.swept if key != "seed"))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """A short name for each key: its last part, unless another key ends in the same part.

    >>> short_names(["algorithm.beta", "eval.temperature", "rollout.temperature"])
    {'algorithm.beta': 'beta', 'eval.temperature': 'eval.temperature', 'rollout.temperature': 'rollout.temperature'}
    """
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def last_error(text: str) -> str:
    """An error in one line: the last exception of a traceback, or the whole of any other text.

    >>> last_error('Traceback (most recent call last):\\n  File "a.py"\\nValueError: no\\n\\nThe whole log: logs/')
    'ValueError: no'
    """
    lines = text.strip().splitlines() or ["no message"]
    if any(line.startswith("Traceback ") for line in lines):
        first = max((number for number, line in enumerate(lines) if EXCEPTION.match(line)), default=len(lines) - 1)
        lines = list(takewhile(str.strip, lines[first:]))
    return " ".join(line.strip() for line in lines)[:MAX_ERROR]


def write_csv(jobs: Sequence[SweepJob], file: Path) -> None:
    """A row per job, the best setting first; if the seed is swept, with the mean and spread of the setting."""
    import pandas as pd

    has_seeds = any("seed" in job.swept for job in jobs)
    rows = []
    for setting in rank_settings(jobs):
        over_seeds = {
            "seeds": len(setting.finished),
            f"{HELDOUT}/mean": setting.mean,
            f"{HELDOUT}/std": setting.spread,
        }
        for job in setting.jobs:
            swept = {key: job.swept.get(key) for key in [*swept_keys(jobs), *(["seed"] if has_seeds else [])]}
            figures = {HELDOUT: job.objective, GREEDY: job.greedy, "rollout/tokens": job.tokens, "time/s": job.seconds}
            figures |= over_seeds if has_seeds else {}
            rows.append({"job": job.folder.name, "status": job.status} | swept | figures | {"error": job.error})
    pd.DataFrame(rows, dtype=object).to_csv(file, index=False)


def _table(jobs: Sequence[SweepJob]) -> "pd.DataFrame":
    """A row per job: the job, its figures, and its value of each swept parameter."""
    import pandas as pd

    names = ["objective", "greedy", "tokens", "seconds"]
    figures = pd.DataFrame([[getattr(job, name) for name in names] for job in jobs], columns=names, dtype=float)
    return figures.assign(job=jobs, **{key: [job.swept.get(key) for job in jobs] for key in swept_keys(jobs)})


def _read_job(folder: Path) -> SweepJob:
    try:
        record = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read: job.json: {error}. Move the folder away.") from error
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
    steps = [row for row in rows if row["step"] > 0]
    tokens = [row["rollout/tokens"] for row in steps if "rollout/tokens" in row]  # empty if nothing is sampled
    message = (folder / "error.txt").read_text(encoding="utf-8") if (folder / "error.txt").is_file() else None
    objective = record.get("objective")
    curve = tuple((int(row["step"]), row[HELDOUT]) for row in rows if HELDOUT in row)
    return SweepJob(
        folder=folder,
        swept=record["swept"],
        objective=objective,
        greedy=next((row[GREEDY] for row in reversed(rows) if GREEDY in row), None),
        error=last_error(message) if message is not None and objective is None else None,
        tokens=int(sum(tokens)) if tokens else None,
        seconds=sum(row["time/step"] for row in steps) if steps else None,
        curve=curve,
    )


def _natural(text: str) -> list[tuple[int, float, str]]:
    """A sorting key: 2 comes before 10, and 1e-6 before 0.1."""
    try:
        return [(0, float(text), "")]
    except ValueError:
        parts = re.split(r"(\d+)", text)
        return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]
