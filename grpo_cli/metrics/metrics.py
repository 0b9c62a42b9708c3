"""The names and the reductions of a run's metrics.

A mean is kept as a sum and a count and divided last, so that merging ranks is exact.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import pstdev

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.metrics.health import Finding
from grpo_cli.runs.rollouts import KeptGroup
from grpo_cli.types import BY_RULE, ScoredGroup, Verdict

# Sums over all steps of the run so far: the total's name, and the metric that is summed.
TOTALS = {
    "total/tokens": "rollout/tokens",
    "total/samples": "rollout/samples",
    "total/trained_tokens": "perf/trained_tokens",
}


class Tally:
    """Means, sums, maxima and spreads that can be merged with those of other ranks."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, float]] = {}  # sum, count
        self._sums: dict[str, float] = {}
        self._maxima: dict[str, float] = {}
        self._spreads: dict[str, list[float]] = {}

    def mean(self, name: str, total: float, count: float) -> None:
        """Add `count` values with the sum `total`."""
        old_total, old_count = self._means.get(name, (0.0, 0.0))
        self._means[name] = (old_total + total, old_count + count)

    def sum(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def max(self, name: str, value: float) -> None:
        self._maxima[name] = max(self._maxima.get(name, value), value)

    def spread(self, name: str, values: Iterable[float]) -> None:
        """Add values whose `/mean`, `/std` (of the population), `/min` and `/max` are metrics."""
        self._spreads.setdefault(name, []).extend(values)

    def merge(self, other: "Tally") -> "Tally":
        """A new tally of the values of both."""
        merged = Tally()
        for tally in (self, other):
            for name, (total, count) in tally._means.items():
                merged.mean(name, total, count)
            for name, value in tally._sums.items():
                merged.sum(name, value)
            for name, value in tally._maxima.items():
                merged.max(name, value)
            for name, values in tally._spreads.items():
                merged.spread(name, values)
        return merged

    def compute(self) -> dict[str, float]:
        """The value of each metric, without means of nothing."""
        means = {name: total / count for name, (total, count) in self._means.items() if count}
        spreads = {
            f"{name}/{key}": value
            for name, values in self._spreads.items()
            if values
            for key, value in _spread(values).items()
        }
        return spreads | means | self._sums | self._maxima

    def values(self) -> dict[str, list[float]]:
        """The values of each spread."""
        return dict(self._spreads)


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Sums are rounded once, so that the result does not depend on how the values were split over ranks."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {"mean": mean, "std": math.sqrt(variance), "min": min(values), "max": max(values)}


def rollout_tally(groups: Sequence[ScoredGroup]) -> Tally:
    """The metrics of a rollout's responses and their scores.

    Lengths are in tokens. Right and wrong use the verdict and cover only rule-graded responses; `group/general` is the
    share of groups that no rule grades. A group is agreeing if all its rewards are equal; it then gives no gradient.
    `reward/group_std` is the mean population standard deviation within a group. The spread of a term is over the
    responses that it scored. `policy/entropy` is the mean of -log p of all sampled tokens, in nats: an unbiased
    estimate of the policy's entropy per token at the sampling temperature, over responses with and without advantage.
    """
    tally = Tally()
    for group in groups:
        rewards = [score.total for score in group.scores if not math.isnan(score.total)]
        right = [score.verdict is Verdict.correct for score in group.scores]
        is_judged = group.scores[0].verdict is not Verdict.unjudged
        tally.mean("reward/group_std", pstdev(rewards) if rewards else 0.0, bool(rewards))
        tally.spread("reward", rewards)
        tally.spread("length", (len(completion.token_ids) for completion in group.completions))
        tally.spread("prompt_length", [len(group.prompt.token_ids)])
        tally.sum("rollout/samples", len(group.completions))
        tally.mean("group/general", not is_judged, 1)
        tally.mean("group/all_right", is_judged and all(right), is_judged)
        tally.mean("group/all_wrong", is_judged and not any(right), is_judged)
        tally.mean("group/agreeing", len(set(rewards)) <= 1, 1)
        for completion, score, is_right in zip(group.completions, group.scores, right, strict=True):
            for term, value in score.terms.items():
                tally.spread(f"reward_term/{term}", [value])
            length = len(completion.token_ids)
            if is_judged:
                for verdict in BY_RULE:
                    tally.mean(f"verify/{verdict}", score.verdict is verdict, 1)
                tally.mean("length/correct", length * is_right, is_right)
                tally.mean("length/wrong", length * (not is_right), not is_right)
            tally.mean("policy/entropy", -sum(completion.logprobs), len(completion.logprobs))
            tally.sum("rollout/tokens", length)
            for num_tokens, age in completion.ages:
                tally.mean("staleness/mean", num_tokens * age, num_tokens)
                tally.max("staleness/max", age)
            tally.mean("length/truncated", completion.truncated, 1)
            tally.mean("reflection/wait_rate", count_self_corrections(completion.text), 1)
    return tally


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A response for people to read, in the console and in the trackers' tables."""

    step: int
    prompt: str
    response: str
    gold: str
    extracted: str | None
    verdict: str
    reward: float
    advantage: float | None


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """What a tracker gets of a step; `values` are shown as histograms."""

    row: Mapping[str, float]  # with `step`
    findings: Sequence[Finding] = ()
    samples: Sequence[SampleRow] = ()
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return int(self.row["step"])


def sample_rows(groups: Iterable[KeptGroup]) -> list[SampleRow]:
    """A row for each response."""
    return [
        SampleRow(
            step=group.step,
            prompt=group.prompt,
            response=response.text,
            gold=group.answer,
            extracted=response.extracted,
            verdict=response.verdict,
            reward=response.reward,
            advantage=response.advantage,
        )
        for group in groups
        for response in group.responses
    ]
