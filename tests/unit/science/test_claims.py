"""Reading a claim's file: what is wrong with it, and that the claims of r1zero can be run."""

import pytest

from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.check import check_stages
from grpo_cli.science.claims import claim_files, read_claim
from grpo_cli.science.experiment import claim_folder, stages_of_claim

CHANGES = [
    ("steps=3 seed=${seed}", "steps=3", "runs.wide: all seeds would run the same command"),
    ("  wide:", "  Wide 2:", "runs.Wide 2: the name has small letters"),
    ("[0, 1]", "[0, 12, 10]", r"\[10, 12\] serve both development and confirmation"),
    ("15, 16, 17]", "15, 16, 16]", "7 different seeds are too few. Give at least 8"),
    ("confirmed_from: 0.1", "confirmed_from: 0.0", "confirmed_from=0 must be above 0"),
    ("refuted_to: -0.1", "refuted_to: 0.1", "refuted_to=0.1 at most 0"),
    ("refuted_to: -0.1", "refuted_to: -0.1, level: 5", "limits.level=5 is not a p-value"),
    ("paired_gap", "pared_gap", "Did you mean paired_gap?"),
    ("first: wide", "frist: wide", "options: missing a required argument: 'first'.*See paired_gap"),
    ("first: wide", "first: broad", "options.first=broad: there is no such arm. Use one of wide, narrow"),
    ("second: narrow", "second: narrow, over: median", "options.over=median: use one of last, first, mean"),
    ("minutes: 1", "minutes: 1\nat_once: 0", "at_once=0: use 1 or more"),
    (
        "paired_gap\noptions: {metric: eval/heldout/avg, first: wide, second: narrow}",
        "least_gap\noptions: {metric: eval/heldout/avg, pairs: [[wide, narow]]}",
        "options.pairs=narow: there is no such arm. Use one of wide, narrow",
    ),
    ("source: nowhere\n", "", "source must be set"),
    ("  confirmation: [10, 11, 12, 13, 14, 15, 16, 17]\n", "", "seeds.confirmation must be set"),
    ("minutes: 1", "minutes: soon", r"mine.yaml: minutes=soon: must be a number\. See docs/science.md"),
    ("minutes: 1", "minute: 1", r"mine.yaml: minute: there is no setting of that name\. Did you mean minutes\?"),
    (
        "development: [0, 1]",
        "development: 0 to 1",
        r"seeds.development=0 to 1: must be a list in brackets, each item a w",
    ),
    ("train steps=4 seed=${seed}", "[train, seed=1]", r"runs.narrow=\[train,seed=1\]: must be a text"),
    ("limits: {confirmed_from: 0.1, refuted_to: -0.1}", "limits: 0.1", r"limits=0.1: limits is a group of settings"),
    ("confirmed_from: 0.1, refuted_to: -0.1", "confirmed_from: a, refuted_to: b", "(?s)confirmed_from=a.*refuted_to=b"),
    ("claim: Wide", "claim: [Wide", "is not YAML"),
]


@pytest.mark.parametrize(("old", "new", "message"), CHANGES, ids=[message for *_, message in CHANGES])
def test_a_fault_in_a_claim_says_what_to_change(case, old, new, message):
    case.change(old, new)
    with pytest.raises(ConfigError, match=message):
        read_claim(str(case.file))


def test_all_faults_are_reported_together(case):
    case.change("steps=3 seed=${seed}", "steps=3")
    case.change("first: wide", "first: broad")
    with pytest.raises(ConfigError, match=r"(?s)runs\.wide.*options\.first"):
        read_claim(str(case.file))


def test_an_unknown_claim_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"Did you mean three_curves\?.*epsilon_10"):
        read_claim("three_curve")


def test_a_seed_serves_one_role(case):
    claim = read_claim(str(case.file))
    assert [claim.role(seed) for seed in (1, 12, 2)] == ["development", "confirmation", "other"]


@pytest.mark.parametrize("name", claim_files())
def test_every_claim_of_r1zero_composes_and_passes_the_checks(name):
    claim = read_claim(name)
    stages = stages_of_claim(claim, claim.seeds.confirmation)
    check_stages(stages[: len(claim.runs)], claim_folder(claim))
    assert claim.minutes <= 15
    assert {stage.name for stage in stages} == {f"{arm}_{seed}" for arm in claim.runs for seed in range(100, 108)}


def test_the_default_set_of_claims_takes_at_most_an_hour():
    claims = [read_claim(name) for name in claim_files()]
    assert sum(claim.minutes for claim in claims if claim.by_default) <= 60
