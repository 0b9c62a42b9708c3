"""The samples of an evaluation on disk, so that none is made twice.

Each rank appends to a file of its own, a line a sample; when all are there they become `<benchmark>.jsonl`, in the
order of the problems.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grpo_cli.evaluation.samples import Sample
from grpo_cli.jsonl import read_jsonl
from grpo_cli.types import Verdict


class SampleStore:
    """The samples of one benchmark in `folder`."""

    def __init__(self, folder: Path, benchmark: str) -> None:
        self.path = folder / f"{benchmark}.jsonl"

    def load(self) -> dict[tuple[str, int], Sample]:
        """What any rank of this or an earlier process has finished, by problem and number."""
        files = [self.path] * self.path.exists() + self._parts()
        return {(sample.id, sample.sample): sample for file in files for sample in read_samples(file)}

    def append(self, samples: Iterable[Sample], rank: int) -> None:
        """Keep each sample as soon as it is there: a process that is killed loses the one being written."""
        with self._part(rank).open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a line that a kill cut off
            for sample in samples:
                file.write(_line(sample))
                file.flush()

    def conclude(self, order: Sequence[tuple[str, int]]) -> None:
        """Put all samples into one file, in this order and then what else there is, and drop the ranks' own."""
        samples = self.load()
        partial = self.path.with_suffix(".tmp")
        with partial.open("wb") as file:
            file.writelines(_line(samples[key]) for key in dict.fromkeys((*order, *samples)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        for part in self._parts():
            part.unlink()

    def _part(self, rank: int) -> Path:
        return self.path.with_suffix(f".rank_{rank}.part")

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.rank_*.part"))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file, without a last line that was cut off while it was written.

    Raises DataError, which names the line, where another is not a sample.
    """
    rows = read_jsonl(path, _sample, "Move the file away to sample it again.", drop_unfinished=True)
    return list(rows.values())


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(**(row | {"verdict": Verdict(row["verdict"])}))


def _line(sample: Sample) -> bytes:
    return json.dumps(asdict(sample)).encode() + b"\n"
