import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo_cli.config.schema import AlgorithmConfig, Weighting
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.batch import (
    TrainingSequence,
    by_length,
    idle_microbatch,
    make_microbatches,
    make_minibatches,
    padding_fraction,
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


def test_every_prediction_of_a_response_token_is_marked_and_nothing_else():
    (microbatch,) = make_microbatches([sequence(2), sequence(4)], 100, pad_id=0, device=CPU)
    assert microbatch.tokens_BS.tolist() == [[10, 11, 12, 50, 51, 0, 0], [10, 11, 12, 50, 51, 52, 53]]
    assert microbatch.mask_BT.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]
    torch.testing.assert_close(
        microbatch.sampler_logprobs_BT, torch.tensor([[0, 0, -0.1, -0.2, 0, 0], [0, 0, -0.1, -0.2, -0.3, -0.4]])
    )


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), budget=st.integers(1, 200))
def test_microbatches_keep_every_sequence_once_within_the_budget(lengths, budget):
    sequences = [sequence(length) for length in lengths]
    microbatches = make_microbatches(sequences, budget, pad_id=0, device=CPU)
    kept = [s for microbatch in microbatches for s in microbatch.sequences]
    assert sorted(map(id, kept)) == sorted(map(id, sequences))
    for microbatch in microbatches:
        assert microbatch.tokens_BS.numel() <= budget or len(microbatch.sequences) == 1


def test_padding_is_what_the_shorter_sequences_lack():
    microbatches = make_microbatches([sequence(2), sequence(4)], 100, pad_id=0, device=CPU)
    assert padding_fraction(microbatches) == (2, 14)


def test_a_microbatch_ends_before_it_is_padded_much():
    # An eighth of the budget, 30 tokens, is worth a call. The 13 would pad three 10s: 9 of 52, more than a twentieth.
    batches = list(by_length([10, 13, 10, 13, 10], 240, lambda n: n))
    assert batches == [[10, 10, 10], [13, 13]]
    # Two 10s are not worth one.
    assert list(by_length([10, 13, 10], 240, lambda n: n)) == [[10, 10, 13]]
    # 1 of 44 is little.
    assert list(by_length([11, 10, 11, 11], 240, lambda n: n)) == [[10, 11, 11, 11]]


def test_an_idle_microbatch_predicts_nothing():
    idle = idle_microbatch(pad_id=0, device=CPU)
    assert not idle.mask_BT.any()
    assert idle.advantages_B.numel() == idle.sampler_logprobs_BT.sum() == 0


@pytest.mark.usefixtures("one_rank")
def test_minibatches_are_runs_of_prompts_each_with_its_own_denominator():
    rollout = Rollout((group(1, 2), group(3, 4), group(5, 6), group(7, 8)), (0, 2, 1, 3), (), 0.0, 0.0)
    first, second = make_minibatches(
        rollout,
        advantages_PG=torch.tensor([[0.0, 1], [2, 3], [4, 5], [6, 7]]),
        selected_PG=torch.ones(4, 2, dtype=torch.bool),
        algorithm=AlgorithmConfig(num_minibatches=2, weighting=Weighting.token_mean),
        max_new_tokens=100,
    )
    # The positions say that the third group was drawn second.
    assert [s.advantage for s in first] == [0, 1, 4, 5]
    assert [s.advantage for s in second] == [2, 3, 6, 7]
    assert [s.weight for s in first] == pytest.approx([1 / (1 + 2 + 5 + 6)] * 4)
    assert [s.weight for s in second] == pytest.approx([1 / (3 + 4 + 7 + 8)] * 4)
