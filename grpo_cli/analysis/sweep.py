"""A sweep, read back from the folders of its jobs: which setting reached what, and what each parameter did."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import fmean, stdev

from grpo_cli.analysis.report import read_metrics
from grpo_cli.errors import DataError

HELDOUT, GREEDY = "eval/heldout/avg", "eval/heldout/greedy"
MAX_ERROR = 500  # characters of an error in a table
# A line that names an exception, as a traceback ends.
EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: |$)")


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep."""

    folder: Path
    swept: dict[str, str]  # what the sweep gave it, by the whole key
    objective: float | None  # the held-out accuracy at the end, of sft minus the loss; None where it did not finish
    greedy: float | None
    error: str | None  # the line that says why it failed
    tokens: int | None  # generated in training
    seconds: float | None  # of all steps, without the start
    curve: tuple[tuple[int, float], ...]  # step, held-out accuracy

    @property
    def status(self) -> str:
        if self.objective is not None:
            return "finished"
        return "failed" if self.error else "unfinished"


@dataclass(frozen=True)
class Setting:
    """The jobs that differ by nothing but their seed."""

    swept: dict[str, str]  # without the seed
    jobs: tuple[SweepJob, ...]

    @cached_property
    def finished(self) -> tuple[SweepJob, ...]:
        return tuple(job for job in self.jobs if job.objective is not None)

    @cached_property
    def mean(self) -> float | None:
        return _mean([job.objective for job in self.finished])

    @cached_property
    def spread(self) -> float | None:
        """The sample standard deviation over seeds; None of fewer than two."""
        return stdev(job.objective for job in self.finished) if len(self.finished) > 1 else None

    @cached_property
    def greedy(self) -> float | None:
        return _mean([job.greedy for job in self.finished])

    @cached_property
    def tokens(self) -> float | None:
        """The mean of a job."""
        return _mean([job.tokens for job in self.finished])

    @cached_property
    def seconds(self) -> float | None:
        """The mean of a job."""
        return _mean([job.seconds for job in self.finished])


@dataclass(frozen=True)
class Effect:
    """What one value of a swept parameter reached, over all settings of the others."""

    key: str
    value: str
    mean: float
    num_jobs: int


def read_sweep(folder: Path) -> list[SweepJob]:
    """The jobs of a sweep, in the order of their numbers.

    Raises DataError where there are none, or where a job's record cannot be read.
    """
    records = sorted(folder.glob("*/job.json"), key=lambda record: _natural(record.parent.name))
    if not records:
        raise DataError(
            f"{folder} holds no jobs of a sweep. Give the folder that `r1zero train -m` made, such as "
            "runs/sweeps/2026-11-20_101500_train."
        )
    return [_read_job(record.parent) for record in records]


def rank_settings(jobs: Sequence[SweepJob]) -> list[Setting]:
    """The settings by falling mean held-out accuracy; those without a finished job come last."""
    groups: dict[tuple[tuple[str, str], ...], list[SweepJob]] = {}
    for job in jobs:
        swept = tuple(sorted((key, value) for key, value in job.swept.items() if key != "seed"))
        groups.setdefault(swept, []).append(job)
    settings = [
        Setting({key: value for key, value in group[0].swept.items() if key != "seed"}, tuple(group))
        for group in groups.values()
    ]
    return sorted(settings, key=lambda setting: (setting.mean is None, -(setting.mean or 0.0)))


def effects(jobs: Sequence[SweepJob]) -> list[Effect]:
    """The mean objective of the finished jobs for each value of each swept parameter but the seed.

    Left out is a parameter with a single value, and one of which no value came twice: the leaderboard says it all.
    """
    rows = []
    for key in swept_keys(jobs):
        by_value: dict[str, list[float]] = {}
        for job in jobs:
            if job.objective is not None and key in job.swept:
                by_value.setdefault(job.swept[key], []).append(job.objective)
        if len(by_value) > 1 and any(len(values) > 1 for values in by_value.values()):
            rows += [
                Effect(key, value, fmean(by_value[value]), len(by_value[value]))
                for value in sorted(by_value, key=_natural)
            ]
    return rows


def swept_keys(jobs: Sequence[SweepJob]) -> list[str]:
    """Every key that the sweep varied, but the seed."""
    return list(dict.fromkeys(key for job in jobs for key in job.swept if key != "seed"))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """What to call each key: its last part, unless another ends the same.

    >>> short_names(["algorithm.beta", "eval.temperature", "rollout.temperature"])
    {'algorithm.beta': 'beta', 'eval.temperature': 'eval.temperature', 'rollout.temperature': 'rollout.temperature'}
    """
    ends = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def last_error(text: str) -> str:
    """What an error says in short, on one line: of a traceback its last exception, plain words whole.

    >>> last_error('Traceback (most recent call last):\\n  File "a.py"\\nValueError: no\\n\\nThe whole log: logs/')
    'ValueError: no'
    """
    lines = text.strip().splitlines() or ["no message"]
    if any(line.startswith("Traceback ") for line in lines):
        first = max((number for number, line in enumerate(lines) if EXCEPTION.match(line)), default=len(lines) - 1)
        lines = list(takewhile(str.strip, lines[first:]))
    return " ".join(line.strip() for line in lines)[:MAX_ERROR]


def write_csv(jobs: Sequence[SweepJob], file: Path) -> None:
    """A row a job, the best setting first; where the seed is swept, with the mean and spread of its setting."""
    has_seeds = any("seed" in job.swept for job in jobs)
    keys = [*swept_keys(jobs), *(["seed"] if has_seeds else [])]
    figures = [HELDOUT, GREEDY, "rollout/tokens", "time/s"]
    over_seeds = ["seeds", f"{HELDOUT}/mean", f"{HELDOUT}/std"] if has_seeds else []
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["job", "status", *keys, *figures, *over_seeds, "error"])
        for setting in rank_settings(jobs):
            shared = [len(setting.finished), setting.mean, setting.spread] if has_seeds else []
            for job in setting.jobs:
                values = [job.swept.get(key) for key in keys]
                reached = [job.objective, job.greedy, job.tokens, job.seconds]
                writer.writerow([job.folder.name, job.status, *values, *reached, *shared, job.error])


def _read_job(folder: Path) -> SweepJob:
    try:
        record = json.loads((folder / "job.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read: job.json: {error}. Move the folder away.") from error
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
    steps = [row for row in rows if row["step"] > 0]
    tokens = [row["rollout/tokens"] for row in steps if "rollout/tokens" in row]  # none where nothing is sampled
    error = (folder / "error.txt").read_text(encoding="utf-8") if (folder / "error.txt").is_file() else None
    objective = record.get("objective")
    curve = tuple((int(row["step"]), row[HELDOUT]) for row in rows if HELDOUT in row)
    return SweepJob(
        folder=folder,
        swept=record["swept"],
        objective=objective,
        greedy=next((row[GREEDY] for row in reversed(rows) if GREEDY in row), None),
        error=last_error(error) if error is not None and objective is None else None,
        tokens=int(sum(tokens)) if tokens else None,
        seconds=sum(row["time/step"] for row in steps) if steps else None,
        curve=curve,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _natural(text: str) -> list[tuple[int, float, str]]:
    """A sorting key by which 2 comes before 10, and 1e-6 before 0.1."""
    try:
        return [(0, float(text), "")]
    except ValueError:
        parts = re.split(r"(\d+)", text)
        return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]
