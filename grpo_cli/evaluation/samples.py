"""Judged samples: one response each, and their files, so that an interrupted run samples only what is missing.

Each rank appends to its own file, one line per sample. Once all samples exist they are merged into
`<benchmark>.jsonl`, in the order of the problems.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpo_cli.jsonl import read_jsonl
from grpo_cli.types import Verdict


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged response to a problem: a line of `<run>/eval/<benchmark>.jsonl`."""

    benchmark: str
    id: str  # of the problem
    sample: int  # 0 to n - 1
    seed: int
    text: str
    extracted: str | None
    verdict: Verdict
    num_tokens: int
    truncated: bool
    well_formed: bool  # follows the format that its template asks for
    skipped: str = ""  # why nothing was sampled, such as a prompt longer than the context; counts as wrong


def samples_by_problem(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each problem by number, the problems in the order of their first samples."""
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.id].append(sample)
    return {id: sorted(group, key=lambda sample: sample.sample) for id, group in groups.items()}


def right_by_problem(samples: Iterable[Sample]) -> dict[str, tuple[int, int]]:
    """For each problem, in the order of their first samples: the number of samples, and of right ones."""
    return {
        id: (len(group), sum(sample.verdict is Verdict.correct for sample in group))
        for id, group in samples_by_problem(samples).items()
    }


class SampleStore:
    """The samples of one benchmark in `folder`."""

    def __init__(self, folder: Path, benchmark: str) -> None:
        self.path = folder / f"{benchmark}.jsonl"

    def load(self) -> dict[tuple[str, int], Sample]:
        """All stored samples, of any rank and any earlier process, by problem id and sample number."""
        files = [self.path] * self.path.exists() + self._parts()
        return {(sample.id, sample.sample): sample for file in files for sample in read_samples(file)}

    def append(self, samples: Iterable[Sample], rank: int) -> None:
        """Write each sample as soon as it arrives: a killed process loses only the one it was writing."""
        with self.path.with_suffix(f".rank_{rank}.part").open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # removes a line that a killed process left unfinished
            for sample in samples:
                file.write(_line(sample))
                file.flush()

    def merge(self, order: Sequence[tuple[str, int]]) -> None:
        """Move all samples into one file, first those of `order`, and delete the files of the ranks."""
        samples = self.load()
        partial = self.path.with_suffix(".tmp")
        with partial.open("wb") as file:
            file.writelines(_line(samples[key]) for key in dict.fromkeys((*order, *samples)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        for part in self._parts():
            part.unlink()

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.rank_*.part"))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file; an unfinished last line is ignored.

    Raises DataError with the line number if any other line is not a valid sample.
    """
    rows = read_jsonl(path, _sample, "Move the file away to sample again.", drop_unfinished=True)
    return list(rows.values())


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(**(row | {"verdict": Verdict(row["verdict"])}))


def _line(sample: Sample) -> bytes:
    return json.dumps(asdict(sample)).encode() + b"\n"
