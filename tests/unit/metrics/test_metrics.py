import math
import random

import pytest

from grpo_cli.metrics.metrics import Tally, rollout_tally
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

PROMPT = Prompt(Problem("1", "What is 17 + 26?", "43"), "What is 17 + 26?", (1, 2))


def completion(length: int, text: str = "", truncated: bool = False) -> Completion:
    return Completion(tuple(range(length)), (-0.5,) * length, text, truncated)


def score(accuracy: float, formatted: float, verdict: Verdict) -> Score:
    return Score(accuracy + 0.1 * formatted, {"accuracy": accuracy, "format": formatted}, verdict, "43")


RIGHT = score(1, 1, Verdict.correct)
WRONG = score(0, 1, Verdict.wrong)
SILENT = score(0, 0, Verdict.unparsable)
HUNG = score(0, 0, Verdict.timeout)
LIKED = Score(3.1, {"model": 3.0, "format": 1.0}, Verdict.unjudged, None)
DISLIKED = Score(-2.0, {"model": -2.0, "format": 0.0}, Verdict.unjudged, None)


def group(*members: tuple[Completion, Score]) -> ScoredGroup:
    return ScoredGroup(PROMPT, *map(tuple, zip(*members, strict=True)))


def test_a_mean_divides_by_the_global_count():
    # averaging 3/1 and 1/3 would give 1.67; merged they are 4/4
    left, right = Tally(), Tally()
    left.mean("loss", total=3, count=1)
    right.mean("loss", total=1, count=3)
    assert left.merge(right).compute() == {"loss": 1.0}


def test_merging_adds_sums_and_takes_the_larger_maximum():
    left, right = Tally(), Tally()
    for tally, value in ((left, -2.0), (right, -3.0)):
        tally.sum("tokens", value)
        tally.max("diff", value)
    assert left.merge(right).compute() == {"tokens": -5.0, "diff": -2.0}


def test_equal_values_deviate_by_exactly_0():
    tally = Tally()
    tally.spread("x", [1.1] * 7)
    assert tally.compute()["x/std"] == 0.0


@pytest.mark.parametrize("name", ["mean", "std", "group_std"])
def test_a_term_may_have_the_name_of_a_metric_of_the_whole_reward(name):
    scores = [Score(reward, {name: value}, Verdict.wrong, None) for reward, value in ((0.5, 7.0), (1.5, 9.0))]
    metrics = rollout_tally([group(*((completion(1), score) for score in scores))]).compute()
    assert (metrics["reward/mean"], metrics["reward/std"], metrics["reward/group_std"]) == (1.0, 0.5, 0.5)
    assert (metrics[f"reward_term/{name}/mean"], metrics[f"reward_term/{name}/std"]) == (8.0, 1.0)


def test_a_mean_of_nothing_is_left_out():
    tally = Tally()
    tally.mean("length/correct", total=0, count=0)
    assert tally.compute() == {}


def test_merge_does_not_change_its_inputs():
    left, right = Tally(), Tally()
    left.mean("loss", 3, 1)
    right.mean("loss", 1, 3)
    left.merge(right)
    assert (left.compute(), right.compute()) == ({"loss": 3.0}, {"loss": pytest.approx(1 / 3)})


MIN_MAX = {"min": 0, "max": 1}


def test_the_metrics_of_a_rollout_worked_by_hand():
    groups = [
        group((completion(4, "wait, wait"), RIGHT), (completion(8, truncated=True), SILENT)),
        group((completion(2), WRONG), (completion(6), HUNG)),
    ]
    assert rollout_tally(groups).compute() == pytest.approx(
        {
            "reward/mean": (1.1 + 0 + 0.1 + 0) / 4,
            "reward/std": math.sqrt((0.8**2 + 0.3**2 + 0.2**2 + 0.3**2) / 4),
            "reward/min": 0,
            "reward/max": 1.1,
            "reward_term/accuracy/mean": 1 / 4,
            "reward_term/accuracy/std": math.sqrt(1 / 4 * 3 / 4),
            "reward_term/format/mean": 2 / 4,
            "reward_term/format/std": 1 / 2,
            **{f"reward_term/{term}/{key}": value for term in ("accuracy", "format") for key, value in MIN_MAX.items()},
            "reward/group_std": (0.55 + 0.05) / 2,
            "verify/correct": 1 / 4,
            "verify/wrong": 1 / 4,
            "verify/unparsable": 1 / 4,
            "verify/timeout": 1 / 4,
            "group/general": 0,
            "group/all_right": 0,
            "group/all_wrong": 1 / 2,
            "group/agreeing": 0,
            "policy/entropy": 0.5,
            "rollout/tokens": 20,
            "rollout/samples": 4,
            # rewards 1.1, 0, 0.1, 0 with the mean 0.3; lengths 4, 8, 2, 6 with the mean 5
            "length/std": 5**0.5,
            "length/min": 2,
            "prompt_length/mean": 2,
            "prompt_length/std": 0,
            "prompt_length/min": 2,
            "prompt_length/max": 2,
            "length/mean": 20 / 4,
            "length/correct": 4,
            "length/wrong": 16 / 3,
            "length/max": 8,
            "length/truncated": 1 / 4,
            "reflection/wait_rate": 2 / 4,
        }
    )


def test_the_entropy_is_over_all_sampled_tokens():
    # A group that agrees and one that does not: 2 tokens of 1 nat, 6 tokens of 0.5
    certain = (Completion((1, 2), (-1.0, -1.0), "", truncated=False), RIGHT)
    groups = [group(certain), group((completion(2), RIGHT), (completion(4), WRONG))]
    assert rollout_tally(groups).compute()["policy/entropy"] == pytest.approx((2 * 1 + 6 * 0.5) / 8)


@pytest.mark.parametrize(
    ("scores", "all_right", "all_wrong", "agreeing"),
    [
        ((RIGHT, RIGHT), 1, 0, 1),
        ((WRONG, WRONG), 0, 1, 1),
        ((RIGHT, WRONG), 0, 0, 0),
        ((WRONG, SILENT), 0, 1, 0),  # all wrong, but their format rewards differ
        ((SILENT, HUNG), 0, 1, 1),  # different verdicts, equal rewards
    ],
)
def test_a_group_agrees_if_its_rewards_are_equal(scores, all_right, all_wrong, agreeing):
    metrics = rollout_tally([group(*((completion(1), score) for score in scores))]).compute()
    seen = tuple(metrics[f"group/{name}"] for name in ("all_right", "all_wrong", "agreeing"))
    assert seen == (all_right, all_wrong, agreeing)


def test_a_response_that_no_rule_judges_is_neither_right_nor_wrong():
    groups = [
        group((completion(4), RIGHT), (completion(6), WRONG)),
        group((completion(7), LIKED), (completion(9), DISLIKED)),
        group((completion(1), LIKED), (completion(1), LIKED)),
    ]
    metrics = rollout_tally(groups).compute()
    assert metrics["group/general"] == pytest.approx(2 / 3)
    assert metrics["group/agreeing"] == pytest.approx(1 / 3)
    assert (metrics["group/all_right"], metrics["group/all_wrong"]) == (0, 0)
    assert (metrics["verify/correct"], metrics["verify/wrong"]) == (0.5, 0.5)
    assert "verify/unjudged" not in metrics
    assert (metrics["length/correct"], metrics["length/wrong"]) == (4, 6)
    assert metrics["length/mean"] == 28 / 6
    assert metrics["reward_term/accuracy/mean"] == 0.5  # over 2 responses
    assert metrics["reward_term/model/mean"] == pytest.approx((3 - 2 + 3 + 3) / 4)
    assert metrics["reward_term/format/mean"] == pytest.approx(5 / 6)
    assert metrics["reward/mean"] == pytest.approx((1.1 + 0.1 + 3.1 - 2 + 3.1 + 3.1) / 6)


def test_a_response_that_no_term_applies_to_has_no_reward_in_the_metrics():
    nothing = Score(math.nan, {}, Verdict.wrong, None)
    groups = [group((completion(1), RIGHT), (completion(1), nothing)), group((completion(1), nothing))]
    metrics = rollout_tally(groups).compute()
    assert (metrics["reward/mean"], metrics["reward/std"], metrics["reward/group_std"]) == (1.1, 0, 0)
    assert metrics["group/agreeing"] == 1
    assert metrics["verify/wrong"] == pytest.approx(2 / 3)


def test_a_rank_with_only_general_prompts_does_not_hide_the_accuracy_of_another():
    general, judged = [group((completion(3), LIKED))], [group((completion(5), RIGHT))]
    assert "group/all_right" not in rollout_tally(general).compute()
    assert rollout_tally(general).merge(rollout_tally(judged)).compute()["group/all_right"] == 1


def test_two_ranks_report_the_same_metrics_as_one():
    draw = random.Random(0)
    groups = [
        group(
            *(
                (
                    completion(draw.randint(1, 9), "wait " * draw.randint(0, 3)),
                    draw.choice([RIGHT, WRONG, HUNG]),
                )
                for _ in range(4)
            )
        )
        for _ in range(9)
    ]
    merged = rollout_tally(groups[:2]).merge(rollout_tally(groups[2:]))
    assert merged.compute() == pytest.approx(rollout_tally(groups).compute(), rel=1e-12)


def test_a_rank_without_a_right_answer_does_not_hide_the_lengths_of_another():
    without, with_right = [group((completion(3), WRONG))], [group((completion(5), RIGHT))]
    assert "length/correct" not in rollout_tally(without).compute()
    assert rollout_tally(without).merge(rollout_tally(with_right)).compute()["length/correct"] == 5


def test_a_spread_is_the_same_however_its_values_are_split_over_ranks():
    # mean 0.25, variance (3 * 0.25**2 + 0.75**2) / 4 = 0.1875
    left, right = Tally(), Tally()
    left.spread("advantage", [1.0])
    right.spread("advantage", [0.0, 0.0, 0.0])
    merged = left.merge(right)
    assert merged.compute() == {
        "advantage/mean": 0.25, "advantage/std": 0.1875**0.5, "advantage/min": 0.0, "advantage/max": 1.0,
    }  # fmt: skip
    assert merged.values() == {"advantage": [1.0, 0.0, 0.0, 0.0]}


def test_a_spread_of_nothing_is_left_out():
    tally = Tally()
    tally.spread("length", [])
    assert tally.compute() == {}
