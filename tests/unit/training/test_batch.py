from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_cli.choices import Weighting
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.rollout.collect import Rollout
from grpo_cli.rollout.support import packed
from grpo_cli.training.batch import (
    TrainingSequence,
    idle_microbatch,
    make_microbatches,
    make_minibatches,
)
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

CPU = torch.device("cpu")


def sequence(response_length: int, prompt_length: int = 3) -> TrainingSequence:
    return TrainingSequence(
        tuple(range(10, 10 + prompt_length)),
        tuple(range(50, 50 + response_length)),
        tuple(-0.1 * (token + 1) for token in range(response_length)),
    )


def group(*lengths: int) -> ScoredGroup:
    return ScoredGroup(
        Prompt(Problem("id", "1 + 1", "2"), "1 + 1", (7, 8)),
        completions=tuple(Completion((9,) * n, (-0.5,) * n, "", truncated=False) for n in lengths),
        scores=tuple(Score(0.0, {}, Verdict.wrong, None) for _ in lengths),
    )


def test_sequences_without_ages_have_the_newest_weights():
    # Refills of dynamic sampling are sampled with them, next to responses that were sampled ahead.
    (mixed,) = make_microbatches([sequence(2), replace(sequence(3), ages=(2, 2, 1))], 100, CPU)
    assert mixed.ages_BT.tolist() == [[0, 0, 0], [2, 2, 1]]
    (newest,) = make_microbatches([sequence(2), sequence(3)], 100, CPU)
    assert newest.ages_BT is None


def test_exactly_the_predictions_of_response_tokens_are_marked():
    (microbatch,) = make_microbatches([sequence(2), sequence(3)], 100, CPU)
    assert microbatch.tokens_S.tolist() == [10, 11, 12, 50, 51, 10, 11, 12, 50, 51, 52]
    assert microbatch.lengths == (5, 6)
    assert microbatch.predicts_S.int().tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    assert microbatch.mask_BT.int().tolist() == [[1, 1, 0], [1, 1, 1]]
    torch.testing.assert_close(microbatch.sampler_logprobs_BT, torch.tensor([[-0.1, -0.2, 0], [-0.1, -0.2, -0.3]]))


def test_each_response_token_keeps_its_support_in_any_micro_batch():
    first = replace(sequence(2), support=(packed([50], [-1]), packed([51, 4, 6], [-1, -1, -2])))
    second = replace(sequence(1), support=(packed([50, 3], [-1, -1]),))
    (together,) = make_microbatches([first, second], 100, CPU)
    *_, support_NK = together.inputs
    assert support_NK.tolist() == [[50, 50, 50], [51, 4, 6], [50, 3, 50]]
    split = [microbatch.inputs[-1].tolist() for microbatch in make_microbatches([first, second], 1, CPU)]
    assert split == [[[50, 50, 50], [51, 4, 6]], [[50, 3]]]
    (demonstrations,) = make_microbatches([sequence(2), sequence(1)], 100, CPU)
    assert demonstrations.inputs[-1] is idle_microbatch(CPU).inputs[-1] is None


@given(lengths=st.lists(st.integers(1, 40), max_size=30), budget=st.integers(1, 200))
def test_microbatches_have_every_sequence_once_and_stay_within_the_budget(lengths, budget):
    sequences = [sequence(length) for length in lengths]
    microbatches = make_microbatches(sequences, budget, CPU)
    assert [s for microbatch in microbatches for s in microbatch.sequences] == sequences
    for microbatch in microbatches:
        assert len(microbatch.tokens_S) == sum(s.length for s in microbatch.sequences)
        assert len(microbatch.tokens_S) <= budget or len(microbatch.sequences) == 1


def test_an_idle_microbatch_predicts_nothing():
    idle = idle_microbatch(CPU)
    assert not idle.predicts_S.any()
    assert not idle.mask_BT.any()
    assert idle.advantages_BT.sum() == idle.sampler_logprobs_BT.sum() == 0


@pytest.mark.usefixtures("one_rank")
def test_minibatches_have_consecutive_prompts_and_each_its_own_denominator():
    rollout = Rollout((group(1, 2), group(3, 4), group(5, 6), group(7, 8)), (0, 2, 1, 3), (), 0.0, 0.0)
    first, second = make_minibatches(
        rollout,
        advantages=[list(advantages_G) for advantages_G in torch.tensor([[0.0, 1], [2, 3], [4, 5], [6, 7]])],
        selected_PG=torch.ones(4, 2, dtype=torch.bool),
        algorithm=AlgorithmConfig(num_minibatches=2, weighting=Weighting.token_mean),
        max_new_tokens=100,
    )
    # By its position, the third group was drawn second.
    assert [s.advantage for s in first] == [0, 1, 4, 5]
    assert [s.advantage for s in second] == [2, 3, 6, 7]
    assert [s.weight for s in first] == pytest.approx([1 / (1 + 2 + 5 + 6)] * 4)
    assert [s.weight for s in second] == pytest.approx([1 / (3 + 4 + 7 + 8)] * 4)


@pytest.mark.usefixtures("one_rank")
def test_a_response_has_one_advantage_or_one_for_each_token():
    rollout = Rollout((group(2, 3),), (0,), (), 0.0, 0.0)
    advantages = [[torch.tensor([0.0, 0.5]), torch.tensor(-1.0)]]
    selected_PG = torch.ones(1, 2, dtype=torch.bool)
    (sequences,) = make_minibatches(rollout, advantages, selected_PG, AlgorithmConfig(), max_new_tokens=100)
    (microbatch,) = make_microbatches(sequences, 100, CPU)
    assert microbatch.advantages_BT.tolist() == [[0.0, 0.5, 0.0], [-1.0, -1.0, -1.0]]


@pytest.mark.parametrize(
    ("advantage", "expected"), [(0.0, False), (1.0, True), ((0.0, 0.0), False), ((0.0, 1.0), True)]
)
def test_a_sequence_has_an_advantage_if_one_of_its_tokens_has(advantage, expected):
    assert replace(sequence(2), advantage=advantage).has_advantage == expected
