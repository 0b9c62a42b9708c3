"""Which problems training leaves out, by how often they were solved: before the run, or in the run (a curriculum).

Groups that are all right or all wrong teach nothing. DAPO (arXiv:2503.14476) replaces them after sampling. A problem
that is left out costs no sampling.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cli.config.data import CurriculumConfig, DataConfig
from grpo_cli.errors import DataError
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.types import Problem

logger = logging.getLogger(__name__)


def within_pass_rate(problems: Sequence[Problem], config: DataConfig) -> tuple[Problem, ...]:
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


class Curriculum:
    """The running pass rate of each problem, and the epoch of its last group. Problems are numbers here.

    A problem that was not sampled yet, or that no rule can judge, is never skipped.
    """

    def __init__(self, low: float, high: float, weight: float, return_after: int) -> None:
        self._low, self._high = low, high
        self._weight = weight
        self._return_after = return_after
        self._seen: dict[int, tuple[float, int]] = {}  # pass rate and epoch

    @classmethod
    def of(cls, config: CurriculumConfig) -> "Curriculum | None":
        """None if no range is set."""
        if config.pass_rate is None:
            return None
        return cls(*config.pass_rate, config.weight, config.return_after)

    def record(self, problem: int, pass_rate: float, epoch: int) -> None:
        """Count a group whose share `pass_rate` of responses is right: rate += weight * (pass_rate - rate)."""
        rate, _ = self._seen.get(problem, (pass_rate, epoch))
        self._seen[problem] = (rate + self._weight * (pass_rate - rate), epoch)

    def skips(self, problem: int, epoch: int) -> bool:
        """Whether its rate is outside the range and its last group is fewer than `return_after` epochs ago."""
        if problem not in self._seen:
            return False
        rate, last = self._seen[problem]
        return self._is_outside(rate) and epoch - last < self._return_after

    @property
    def num_outside(self) -> int:
        """How many problems have a rate outside the range."""
        return sum(self._is_outside(rate) for rate, _ in self._seen.values())

    def state(self) -> list[list[float]]:
        """Problem, rate and epoch of each problem that was sampled, as plain JSON values."""
        return [[problem, *seen] for problem, seen in sorted(self._seen.items())]

    def load_state(self, state: Iterable[Sequence[float]]) -> None:
        self._seen = {int(problem): (rate, int(epoch)) for problem, rate, epoch in state}

    def _is_outside(self, rate: float) -> bool:
        return not self._low <= rate <= self._high
