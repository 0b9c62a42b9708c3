"""The names and the reductions of a run's metrics.

A mean is kept as a sum and a count, divided last, so that what several ranks saw adds up exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import pstdev

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.types import BY_RULE, ScoredGroup, Verdict


class Tally:
    """Means, sums and maxima that can still be merged with those of another rank."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, float]] = {}  # sum, count
        self._sums: dict[str, float] = {}
        self._maxima: dict[str, float] = {}

    def mean(self, name: str, total: float, count: float) -> None:
        """Adds `count` values that sum to `total`."""
        seen_total, seen_count = self._means.get(name, (0.0, 0.0))
        self._means[name] = (seen_total + total, seen_count + count)

    def sum(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def max(self, name: str, value: float) -> None:
        self._maxima[name] = max(self._maxima.get(name, value), value)

    def merge(self, other: "Tally") -> "Tally":
        """A new tally of what both have seen."""
        merged = Tally()
        for tally in (self, other):
            for name, (total, count) in tally._means.items():
                merged.mean(name, total, count)
            for name, value in tally._sums.items():
                merged.sum(name, value)
            for name, value in tally._maxima.items():
                merged.max(name, value)
        return merged

    def compute(self) -> dict[str, float]:
        """The value of each name; a mean of nothing is left out."""
        means = {name: total / count for name, (total, count) in self._means.items() if count}
        return means | self._sums | self._maxima


def rollout_tally(groups: Sequence[ScoredGroup]) -> Tally:
    """What was sampled and how it was judged.

    Lengths are in tokens. Right and wrong go by the verdict, and are told of the responses that a rule judged alone;
    `group/general` is the share of the groups that none does. A group agrees when all its rewards are equal: it
    teaches nothing. `reward/group_std` is the mean population standard deviation within a group. A term's mean is
    over the responses that it scored. `policy/entropy` is the mean of -log p of all sampled tokens, in nats: without
    bias the policy's entropy a token at the sampling temperature, of responses with and without advantage.
    """
    tally = Tally()
    for group in groups:
        rewards = [score.total for score in group.scores]
        right = [score.verdict is Verdict.correct for score in group.scores]
        is_judged = group.scores[0].verdict is not Verdict.unjudged
        tally.mean("reward/group_std", pstdev(rewards), 1)
        tally.mean("group/general", not is_judged, 1)
        tally.mean("group/all_right", is_judged and all(right), is_judged)
        tally.mean("group/all_wrong", is_judged and not any(right), is_judged)
        tally.mean("group/agreeing", len(set(rewards)) == 1, 1)
        for completion, score, is_right in zip(group.completions, group.scores, right, strict=True):
            tally.mean("reward/mean", score.total, 1)
            for term, value in score.terms.items():
                tally.mean(f"reward/{term}", value, 1)
            length = len(completion.token_ids)
            if is_judged:
                for verdict in BY_RULE:
                    tally.mean(f"verify/{verdict}", score.verdict is verdict, 1)
                tally.mean("length/correct", length * is_right, is_right)
                tally.mean("length/wrong", length * (not is_right), not is_right)
            tally.mean("policy/entropy", -sum(completion.logprobs), len(completion.logprobs))
            tally.sum("rollout/tokens", length)
            tally.mean("length/mean", length, 1)
            tally.max("length/max", length)
            tally.mean("length/truncated", completion.truncated, 1)
            tally.mean("reflection/wait_rate", count_self_corrections(completion.text), 1)
    return tally


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A completion as people read it, with what it earned."""

    step: int
    prompt: str
    response: str
    gold: str
    extracted: str | None
    verdict: str
    reward: float
    advantage: float
