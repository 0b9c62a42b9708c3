import math
from dataclasses import replace

import pytest
import torch

from grpo_cli.choices import AdvantageReward, AdvantageScale, Baseline, KLPlacement, Overlong, Select
from grpo_cli.config.algorithm import AdvantageConfig, AlgorithmConfig, KLConfig
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.advantages import advantages, objective_rewards, rollout_advantages, selected_responses
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

# What is 17 + 26? Well formed and right (but cut off), untagged, well formed and wrong, right but untagged.
TOTALS = (1.1, 0.0, 0.1, 0.0)
CORRECT = (True, False, False, False)
TRUNCATED = (True, False, False, False)


@pytest.fixture
def rollout() -> Rollout:
    scores = tuple(
        Score(total, {}, Verdict.correct if correct else Verdict.wrong, None)
        for total, correct in zip(TOTALS, CORRECT, strict=True)
    )
    completions = tuple(Completion((1,), (-0.5,), "", truncated) for truncated in TRUNCATED)
    prompt = Prompt(Problem("id", "What is 17 + 26?", "43"), "", (1,))
    return Rollout((ScoredGroup(prompt, completions, scores),), (0,), (), 0.0, 0.0)


def rewards(rollout: Rollout, **switches) -> list[list[float]]:
    return objective_rewards(rollout, AlgorithmConfig(**switches)).tolist()


def selected(rollout: Rollout, **switches) -> list[list[bool]]:
    return selected_responses(rollout, AlgorithmConfig(**switches)).tolist()


def test_the_advantage_uses_the_total_reward_or_only_the_accuracy(rollout):
    assert rewards(rollout) == [[1.1, 0, 0.1, 0]]
    assert rewards(rollout, advantage=AdvantageConfig(reward=AdvantageReward.accuracy)) == [[1, 0, 0, 0]]


def test_overlong_decides_how_a_cut_response_counts(rollout):
    assert rewards(rollout, overlong=Overlong.zero_reward) == [[0, 0, 0.1, 0]]
    assert rewards(rollout, overlong=Overlong.mask) == [[1.1, 0, 0.1, 0]]
    assert selected(rollout, overlong=Overlong.zero_reward) == [[True, True, True, True]]
    assert selected(rollout, overlong=Overlong.mask) == [[False, True, True, True]]


def test_expert_iteration_keeps_the_correct_responses(rollout):
    assert selected(rollout, select=Select.correct) == [[True, False, False, False]]
    assert selected(rollout, select=Select.correct, overlong=Overlong.zero_reward) == [[False] * 4]


@pytest.mark.usefixtures("one_rank")
def test_a_response_that_no_term_applies_to_teaches_nothing_and_leaves_the_others_as_they_are(rollout):
    (group,) = rollout.groups
    unscored = replace(group.scores[1], total=math.nan)
    rollout = replace(rollout, groups=(replace(group, scores=(group.scores[0], unscored, *group.scores[2:])),))
    # The mean of 1.1, 0.1 and 0 is 0.4.
    assert rewards(rollout) == [[1.1, pytest.approx(0.4), 0.1, 0]]
    assert selected(rollout) == [[True, False, True, True]]
    algorithm = AlgorithmConfig(advantage=AdvantageConfig(scale=AdvantageScale.none))
    assert all_advantages(rollout, algorithm) == pytest.approx([0.7, 0, -0.3, -0.4])
    by_accuracy = AdvantageConfig(reward=AdvantageReward.accuracy)
    assert rewards(rollout, advantage=by_accuracy) == [[1, 0, 0, 0]]
    assert selected(rollout, advantage=by_accuracy) == [[True] * 4]


def test_a_group_without_any_reward_has_zeros(rollout):
    (group,) = rollout.groups
    scores = tuple(replace(score, total=math.nan) for score in group.scores)
    assert rewards(replace(rollout, groups=(replace(group, scores=scores),))) == [[0, 0, 0, 0]]


@pytest.mark.usefixtures("one_rank")
def test_without_a_reward_every_advantage_is_zero(rollout):
    algorithm = AlgorithmConfig(advantage=AdvantageConfig(reward=AdvantageReward.none))
    assert all_advantages(rollout, algorithm) == [0, 0, 0, 0]
    assert selected(rollout, advantage=algorithm.advantage) == [[True] * 4]


@pytest.mark.usefixtures("one_rank")
def test_advantages_of_17_plus_26_worked_by_hand(rollout):
    algorithm = AlgorithmConfig(advantage=AdvantageConfig(eps=0.0))
    (row,) = advantages(objective_rewards(rollout, algorithm), algorithm).tolist()
    assert row == pytest.approx([1.725, -0.647, -0.431, -0.647], abs=5e-4)


RAW = {"baseline": Baseline.none, "scale": AdvantageScale.none, "eps": 0.0}
# Each of the four responses has one token.
KL = [[torch.tensor([value]) for value in (0.5, 0.0, -1.0, 0.0)]]


def all_advantages(rollout: Rollout, algorithm: AlgorithmConfig, kl=None) -> list[float]:
    (advantages_G,) = rollout_advantages(rollout, selected_responses(rollout, algorithm), kl, algorithm)
    return [advantage.item() for advantage in advantages_G]


@pytest.mark.usefixtures("one_rank")
def test_without_token_options_every_response_has_one_advantage(rollout):
    (row,) = advantages(objective_rewards(rollout, AlgorithmConfig()), AlgorithmConfig()).tolist()
    assert all_advantages(rollout, AlgorithmConfig()) == row


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(
    ("placement", "baseline", "expected"),
    [
        # 1.1, 0, 0.1, 0 minus 0.1 times the KL
        (KLPlacement.reward, Baseline.none, [1.05, 0.0, 0.2, 0.0]),
        (KLPlacement.reward_to_go, Baseline.none, [1.05, 0.0, 0.2, 0.0]),
        # The mean reward is 0.3; after subtracting the KL, 0.3125.
        (KLPlacement.reward, Baseline.group_mean, [0.7375, -0.3125, -0.1125, -0.3125]),
        (KLPlacement.reward_to_go, Baseline.group_mean, [0.75, -0.3, -0.1, -0.3]),
    ],
)
def test_the_kl_is_subtracted_from_the_reward_or_from_the_tokens_advantage(rollout, placement, baseline, expected):
    algorithm = AlgorithmConfig(
        advantage=AdvantageConfig(**RAW | {"baseline": baseline}), beta=0.1, kl=KLConfig(placement=placement)
    )
    assert all_advantages(rollout, algorithm, KL) == pytest.approx(expected)


@pytest.mark.usefixtures("one_rank")
def test_masked_responses_do_not_affect_the_whitening(rollout):
    # Without the first response, which was cut: 0, 0.1 and 0, mean 1/30, variance (4 + 1 + 1) / 900 / 3
    algorithm = AlgorithmConfig(advantage=AdvantageConfig(**RAW, whiten=True), overlong=Overlong.mask)
    std = (2 / 900) ** 0.5
    assert all_advantages(rollout, algorithm)[1:] == pytest.approx([-1 / 30 / std, 2 / 30 / std, -1 / 30 / std])
