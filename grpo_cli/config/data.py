"""`data.*` and `benchmark.*`: where problems come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from grpo_cli.bounds import number
from grpo_cli.choices import Grader, Layout, OnBadGold

NUM_HELDOUT = 256  # unless num_heldout is set or the data set is small


@dataclass
class ColumnsConfig:
    """The columns of a data set; a dot goes into a nested column, as in `extra_info.answer`."""

    id: str | None = "id"
    """The row's id; rows are numbered if this is null or the column is missing."""
    problem: str = "problem"
    """The problem's text."""
    answer: str = "answer"
    """The gold answer."""
    grader: str | None = "grader"
    """How the row's answer is graded; the data set's grader if this is null or the column is missing."""
    answer_pattern: str | None = None
    """A regular expression for the answer column; its first group is the answer, as in "#### (.+)"."""
    extra: Any = field(default_factory=list)
    """Other columns that your reward functions read in `problem.extra`, as in [hint,difficulty], or all."""

    def faults(self, key: str) -> Iterator[str]:
        if self.extra != "all" and not (
            isinstance(self.extra, list) and all(isinstance(column, str) for column in self.extra)
        ):
            yield f"{key}extra={self.extra} must be a list of columns, as in {key}extra=[hint,difficulty], or all."


@dataclass
class RowsConfig:
    """Where the rows of a data set come from."""

    path: str | None = None
    """A JSONL, CSV or parquet file or an arrow folder; used instead of `source` if set."""
    source: str | None = None
    """A Hub id, or a built-in data set such as builtin:make_zero."""
    subset: str | None = None
    """Subset of the Hub data set."""
    file: str | None = None
    """One JSONL or parquet file of the Hub data set, if it declares no splits."""
    revision: str | None = None
    """Revision on the Hub; pin it to make a run repeatable."""
    split: str = "train"
    """Split of the Hub data set, or of an arrow folder that has several."""
    filter: dict[str, Any] = field(default_factory=dict)
    """Use only rows with one of these values in a column, as in {level:[4,5]}."""
    exclude: dict[str, Any] = field(default_factory=dict)
    """Leave out rows with one of these values in a column, as in {answer:[proof,""]}; "" is a missing value."""
    max_bad_rows: int = number(0, at_least=0)
    """Rows that may be unusable; they are left out, with a warning."""

    def faults(self, key: str) -> Iterator[str]:
        if self.path is not None and not Path(self.path).expanduser().exists():
            yield f"{key}path={self.path}: there is no such file or folder."


@dataclass
class SourceConfig(RowsConfig):
    """Where problems come from."""

    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Columns of `path`."""
    source_columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Columns of the Hub data set."""
    grader: Grader = Grader.math
    """How answers are graded, for rows that do not say."""

    def faults(self, key: str) -> Iterator[str]:
        if self.source is None and self.path is None:
            yield (
                f"{key}path is not set. Give a JSONL, CSV or parquet file or an arrow folder, as in "
                f"{key}path=train.jsonl."
            )
        if self.path is None and self.columns.extra:
            yield (
                f"{key}columns.extra names columns of the file {key}path, which is not set. Set "
                f"{key}source_columns.extra for columns of {key}source={self.source}."
            )
        yield from super().faults(key)


@dataclass
class DataConfig(SourceConfig):
    """The training problems."""

    name: str = MISSING
    """The data set's name in tables and plots."""
    on_bad_gold: OnBadGold = OnBadGold.drop
    """What to do with a problem whose gold answer cannot be graded."""
    num_heldout: int | None = number(None, at_least=1)
    """Problems kept out of training, for evaluation; if not set, 256, or a tenth of a small data set."""
    pass_rate: tuple[float, float] | None = number(None, at_least=0, at_most=1, count=2)
    """Train only on problems whose pass rate in `pass_rates` is in this range, as in [0.05,0.9]."""
    pass_rates: str | None = None
    """The file of pass rates that `r1zero analyze` writes."""

    def faults(self, key: str) -> Iterator[str]:
        yield from super().faults(key)
        if self.pass_rate is not None and self.pass_rates is None:
            yield (
                f"{key}pass_rate needs the pass rates of the problems. Set {key}pass_rates to the file that `r1zero "
                f"analyze` wrote, as in {key}pass_rates=runs/.../pass_rates_default.jsonl."
            )
        if self.pass_rates is not None and not Path(self.pass_rates).expanduser().is_file():
            yield f"{key}pass_rates={self.pass_rates}: there is no such file."
        if self.pass_rate is not None and list(self.pass_rate) != sorted(self.pass_rate):
            yield f"{key}pass_rate={list(self.pass_rate)}: must be two shares in rising order, as in [0.05,0.9]."


@dataclass
class CurriculumConfig:
    """Which problems training skips, by how often the policy solved them in this run."""

    pass_rate: tuple[float, float] | None = number(None, at_least=0, at_most=1, count=2)
    """Skip problems whose running pass rate is outside this range, as in [0.05,0.95]; if not set, none.
    Needs several epochs."""
    weight: float = number(0.5, above=0, at_most=1)
    """Weight of a problem's last group in its running pass rate."""
    return_after: int = number(3, at_least=1)
    """Epochs after which a skipped problem is sampled again."""

    def faults(self, key: str) -> Iterator[str]:
        if self.pass_rate is not None and list(self.pass_rate) != sorted(self.pass_rate):
            yield f"{key}pass_rate={list(self.pass_rate)}: must be two shares in rising order, as in [0.05,0.95]."


@dataclass
class TrainDataConfig(DataConfig):
    """The training problems."""

    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)


@dataclass
class BenchmarkConfig(SourceConfig):
    """Problems for evaluation only. A problem that cannot be graded still counts in the denominator."""

    layout: Layout = Layout.answer
    """How rows become problems: of the Hub data set, and of a file without the columns `problem` and `answer`."""
    split: str = "test"
    """Split of the Hub data set, or of an arrow folder that has several."""
