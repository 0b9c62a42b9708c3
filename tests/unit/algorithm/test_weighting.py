import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.weighting import token_weights

LENGTHS = tensor([1, 2, 5])


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("sequence_mean", [1 / 3, 1 / 6, 1 / 15]),
        ("constant", [1 / 30, 1 / 30, 1 / 30]),
        ("token_mean", [1 / 8, 1 / 8, 1 / 8]),
        ("sum", [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_weights_worked_by_hand(weighting, expected):
    weights = token_weights(LENGTHS, weighting=weighting, max_new_tokens=10)
    torch.testing.assert_close(weights, tensor(expected))


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("sequence_mean", [1 / 2, 0, 1 / 10]),
        ("constant", [1 / 20, 0, 1 / 20]),
        ("token_mean", [1 / 6, 0, 1 / 6]),
        ("sum", [1 / 2, 0, 1 / 2]),
    ],
)
def test_denominators_do_not_count_a_response_that_is_not_selected(weighting, expected):
    selected = tensor([True, False, True])
    weights = token_weights(LENGTHS, weighting=weighting, max_new_tokens=10, selected_B=selected)
    torch.testing.assert_close(weights, tensor(expected))


@pytest.mark.parametrize("weighting", ["sequence_mean", "constant", "token_mean", "sum"])
def test_without_selected_responses_all_weights_are_zero(weighting):
    selected = torch.zeros(3, dtype=torch.bool)
    weights = token_weights(LENGTHS, weighting=weighting, max_new_tokens=10, selected_B=selected)
    assert weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize("weighting", ["sequence_mean", "token_mean"])
def test_the_weights_of_all_tokens_add_up_to_one(weighting):
    weights = token_weights(LENGTHS, weighting=weighting, max_new_tokens=10)
    torch.testing.assert_close((weights * LENGTHS).sum(), tensor(1.0))


def test_an_empty_response_has_a_finite_weight():
    weights = token_weights(tensor([0, 4]), weighting="sequence_mean", max_new_tokens=10)
    assert weights.isfinite().all()


def test_an_unknown_weighting_raises():
    with pytest.raises(AssertionError, match="median"):
        token_weights(LENGTHS, weighting="median", max_new_tokens=10)
