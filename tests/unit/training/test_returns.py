import math

import pytest
import torch
from torch import tensor

from grpo_cli.choices import AdvantageKind, AdvantageScale, Baseline, KLPlacement
from grpo_cli.config.algorithm import AdvantageConfig, AlgorithmConfig, KLConfig
from grpo_cli.training.returns import critic_advantages, explained_variance

# One group of two responses, with two tokens and one token.
REWARDS_PG = tensor([[1.0, 0.0]], dtype=torch.float64)
VALUES = [[tensor([0.25, 0.5]), tensor([0.75])]]
KL = [[tensor([0.5, -1.0]), tensor([2.0])]]


def by_hand(placement: KLPlacement, kl=KL, **settings) -> list[list[float]]:
    advantage = AdvantageConfig(kind=AdvantageKind.gae, baseline=Baseline.none, scale=AdvantageScale.none, **settings)
    algorithm = AlgorithmConfig(advantage=advantage, beta=0.1, kl=KLConfig(placement=placement))
    (group,) = critic_advantages(REWARDS_PG, VALUES, kl, algorithm)
    return [advantages_T.tolist() for advantages_T in group]


def test_the_reward_is_at_the_last_token_and_the_kl_at_each():
    # rewards of tokens: -0.05, 1.1 and -0.2; with lambda = 1, returns minus values
    first, second = by_hand(KLPlacement.reward_to_go)
    assert first == pytest.approx([1.05 - 0.25, 1.1 - 0.5])
    assert second == pytest.approx([-0.2 - 0.75])
    # deltas: -0.05 + 0.5 - 0.25, 1.1 - 0.5
    assert by_hand(KLPlacement.reward_to_go, gae_lambda=0.0)[0] == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(("placement", "kl"), [(KLPlacement.reward, KL), (KLPlacement.loss, None)])
def test_a_kl_that_is_elsewhere_is_not_subtracted_again(placement, kl):
    assert by_hand(placement, kl) == [[0.75, 0.5], [-0.75]]


def test_explained_variance_worked_by_hand():
    # returns 0, 1, 2 with variance 2/3; errors 0, 0.5, 0 with variance 0.25/3 - 0.25/9 = 1/18
    assert explained_variance(tensor([0.0, 0.5, 2.0]), tensor([0.0, 1.0, 2.0])) == pytest.approx(1 - 1 / 12)
    assert explained_variance(tensor([5.0, 5.0, 5.0]), tensor([0.0, 1.0, 2.0])) == pytest.approx(0)
    assert explained_variance(tensor([2.0, 1.0, 0.0]), tensor([0.0, 1.0, 2.0])) == pytest.approx(-3)


def test_equal_returns_have_no_explained_variance():
    assert math.isnan(explained_variance(tensor([0.0, 1.0]), tensor([0.1, 0.1])))
    assert math.isnan(explained_variance(tensor([]), tensor([])))


def test_explained_variance_counts_the_tokens_of_all_ranks():
    values, returns = tensor([0.0, 0.5, 2.0, 1.0]), tensor([0.0, 1.0, 2.0, 3.0])
    of_ranks: list = []
    explained_variance(values[:1], returns[:1], lambda sums: [of_ranks.append(sums), sums][1:])
    on_second = explained_variance(values[1:], returns[1:], lambda sums: [*of_ranks, sums])
    assert on_second == pytest.approx(explained_variance(values, returns))
