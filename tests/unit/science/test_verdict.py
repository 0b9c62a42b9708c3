"""Verdicts follow the limits that the claim fixed before."""

import pytest

from grpo_cli.science.claims import read_claim
from grpo_cli.science.statistics import summarize
from grpo_cli.science.verdict import Outcome, judged, verdict


@pytest.fixture
def claim(case):
    """Confirmed from 0.1, refuted to -0.1, by the seeds 10 to 17."""
    return read_claim(str(case.file))


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([0.2] * 8, Outcome.confirmed),
        ([0.1] * 7 + [-0.5], Outcome.confirmed),  # 7 of 8: p = 9/256
        ([0.2] * 6 + [-0.1] * 2, Outcome.not_confirmed),  # 6 of 8: p = 37/256
        ([0.09] * 8, Outcome.not_confirmed),  # all above 0, but too little
        ([0.0] * 8, Outcome.not_confirmed),
        ([-0.09] * 8, Outcome.not_confirmed),
        ([-0.2] * 6 + [0.1] * 2, Outcome.not_confirmed),
        ([-0.1] * 7 + [0.5], Outcome.refuted),
    ],
)
def test_a_verdict_needs_the_median_and_the_sign_test(claim, values, outcome):
    assert verdict(claim, dict(zip(range(10, 18), values, strict=True))) == outcome


def test_there_is_no_verdict_until_every_confirmation_seed_is_done(claim):
    assert verdict(claim, dict.fromkeys(range(10, 17), 0.2)) == Outcome.open


def test_other_seeds_do_not_count(claim):
    good, bad = dict.fromkeys(range(10, 18), 0.2), dict.fromkeys(range(10), -0.9)
    assert verdict(claim, good | bad) == Outcome.confirmed
    assert verdict(claim, bad) == Outcome.open


def test_a_stricter_level_needs_more_agreement(claim):
    values = summarize([0.2] * 7 + [-0.1])
    claim.limits.level = 0.01
    assert judged(values, claim.limits) == Outcome.not_confirmed
