"""The verdict on a claim, from its confirmation seeds alone."""

from collections.abc import Mapping
from enum import StrEnum

from grpo_cli.science.claims import Claim, Limits
from grpo_cli.science.statistics import Summary, summarize


class Outcome(StrEnum):
    confirmed = "confirmed"
    refuted = "refuted"
    not_confirmed = "not confirmed"  # neither: the effect is too small, or the seeds disagree
    open = "no verdict yet"  # a confirmation seed is missing


def verdict(claim: Claim, values: Mapping[int, float]) -> Outcome:
    """The outcome for the statistic's value of each finished seed. Without all confirmation seeds there is none.

    Seeds that serve something else do not count.
    """
    seeds = set(claim.seeds.confirmation)
    if not seeds <= set(values):
        return Outcome.open
    return judged(summarize([values[seed] for seed in sorted(seeds)]), claim.limits)


def judged(summary: Summary, limits: Limits) -> Outcome:
    """What the limits say about the values of some seeds."""
    if summary.median >= limits.confirmed_from and summary.p_above <= limits.level:
        return Outcome.confirmed
    if summary.median <= limits.refuted_to and summary.p_below <= limits.level:
        return Outcome.refuted
    return Outcome.not_confirmed
