"""The weight of the entropy bonus follows a target, over all ranks and after a resume."""

import pytest

from grpo_cli.config.algorithm import EntropyBonusConfig
from grpo_cli.training import entropy_bonus
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.entropy_bonus import EntropyBonus

pytestmark = pytest.mark.usefixtures("one_rank")


def sampled(*logprobs: float) -> list[TrainingSequence]:
    return [TrainingSequence((1,), (2,) * len(logprobs), logprobs)]


def test_the_weight_rises_below_the_target_and_falls_above_it():
    bonus = EntropyBonus(EntropyBonusConfig(weight=0.02, target=0.5, change=0.01))
    entropies = (0.25, 0.25, 0.75, 0.5, 0.25)
    # c = 0.02, 0.03, 0.04, 0.03, 0.02; above the target there is no bonus
    expected = (0.02, 0.03, 0.0, 0.03, 0.02)
    weights = [bonus.next_weight(sampled(-entropy, -entropy)) for entropy in entropies]
    assert weights == pytest.approx(expected)


def test_the_weight_is_never_negative():
    bonus = EntropyBonus(EntropyBonusConfig(target=0.5, change=1.0))
    assert [bonus.next_weight(sampled(-entropy)) for entropy in (2.0, 2.0, 0.1, 0.1)] == [0.0, 0.0, 0.0, 1.0]


def test_the_entropy_is_that_of_the_tokens_of_all_ranks(monkeypatch):
    monkeypatch.setattr(entropy_bonus, "gather", lambda value: [value, (-30.0, 10)])
    bonus = EntropyBonus(EntropyBonusConfig(weight=1.0, target=2.5))
    assert bonus.next_weight(sampled(-0.5, -0.5)) == 0.0  # 31 / 12 nats, although this rank has 0.5


def test_without_a_target_the_weight_stays():
    bonus = EntropyBonus(EntropyBonusConfig(weight=0.1))
    assert bonus.is_on
    assert [bonus.next_weight(sampled(-5.0)) for _ in range(2)] == [0.1, 0.1]
    assert not EntropyBonus(EntropyBonusConfig()).is_on


def test_the_weight_is_part_of_the_checkpoint(tmp_path):
    settings = EntropyBonusConfig(target=0.5)
    saved, resumed = EntropyBonus(settings), EntropyBonus(settings)
    for _ in range(3):
        saved.next_weight(sampled(-0.1))
    saved.save(tmp_path)
    resumed.load(tmp_path)
    assert resumed.next_weight(sampled(-0.1)) == pytest.approx(0.015)


def test_a_checkpoint_without_the_weight_leaves_that_of_the_settings(tmp_path):
    EntropyBonus(EntropyBonusConfig(weight=0.3)).save(tmp_path)
    resumed = EntropyBonus(EntropyBonusConfig(weight=0.2, target=0.5))
    resumed.load(tmp_path)
    assert resumed.next_weight(sampled(-0.1)) == 0.2
