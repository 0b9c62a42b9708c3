import math

import pytest
import torch
from torch import tensor

from grpo_cli.algorithm.correction import off_policy_mask, sampler_correction, sampler_mismatch

MASK = tensor([[True, True, False], [True, False, False]])
SAMPLER = tensor([[0.5, 0.4, 0.9], [0.1, 0.9, 0.9]]).log()
TRAINER = tensor([[0.25, 0.8, 0.1], [0.1, 0.1, 0.1]]).log()  # ratios 0.5, 2 and 1; padding does not count


def test_the_mismatch_of_three_tokens_worked_by_hand():
    sums, maxima = sampler_mismatch(TRAINER, SAMPLER, MASK)
    assert sums.num_tokens == 3
    # r - 1 - ln r, with r = 0.5, 2, 1: 0.5 - 1 + ln 2 + 2 - 1 - ln 2
    assert sums.kl.item() == pytest.approx(0.5)
    assert sums.logprob_diff.item() == pytest.approx(2 * math.log(2))
    assert sums.prob_diff.item() == pytest.approx(0.25 + 0.4)
    assert sums.ratio.item() == pytest.approx(3.5)
    assert maxima.logprob_diff.item() == pytest.approx(math.log(2))
    assert maxima.prob_diff.item() == pytest.approx(0.4)
    assert maxima.ratio.item() == pytest.approx(2)


def test_the_kl_has_the_right_direction():
    # r = 0.1: 0.1 - 1 - ln 0.1; in the other direction it would be 10 - 1 - ln 10
    sums, _ = sampler_mismatch(tensor([[0.05]]).log(), tensor([[0.5]]).log(), tensor([[True]]))
    assert sums.kl.item() == pytest.approx(0.1 - 1 + math.log(10))


def test_mismatches_of_micro_batches_add_up():
    whole_sums, whole_maxima = sampler_mismatch(TRAINER, SAMPLER, MASK)
    parts = [sampler_mismatch(TRAINER[[i]], SAMPLER[[i]], MASK[[i]]) for i in range(2)]
    torch.testing.assert_close(
        tensor([sum(part) for part in zip(*(p[0] for p in parts), strict=True)]), tensor(whole_sums)
    )
    torch.testing.assert_close(
        tensor([max(part) for part in zip(*(p[1] for p in parts), strict=True)]), tensor(whole_maxima)
    )


def test_without_tokens_the_mismatch_is_zero():
    sums, maxima = sampler_mismatch(TRAINER, SAMPLER, torch.zeros_like(MASK))
    assert [*map(float, sums), *map(float, maxima)] == [0.0] * 8


def test_padding_does_not_affect_the_mismatch():
    trainer, sampler = TRAINER.masked_fill(~MASK, math.nan), SAMPLER.masked_fill(~MASK, math.inf)
    assert sampler_mismatch(trainer, sampler, MASK) == sampler_mismatch(TRAINER, SAMPLER, MASK)


def test_token_truncate_caps_each_ratio():
    weights = sampler_correction(TRAINER, SAMPLER, MASK, method="token_truncate", cap=1.5)
    torch.testing.assert_close(weights, tensor([[0.5, 1.5, 1.0], [1.0, 1.0, 1.0]]))


def test_token_mask_drops_each_token_whose_ratio_is_outside_its_bounds():
    # ratios 0.5, 2 and 1
    for floor, cap, expected in ((0.5, 2, [0.5, 2, 1]), (0.6, 2, [0, 2, 1]), (0.5, 1.9, [0.5, 0, 1])):
        weights = sampler_correction(TRAINER, SAMPLER, MASK, method="token_mask", cap=cap, floor=floor)
        torch.testing.assert_close(weights, tensor([[*expected[:2], 1.0], [expected[2], 1.0, 1.0]]))


@pytest.mark.parametrize("method", ["token_truncate", "token_mask", "sequence_mask"])
def test_a_log_ratio_beyond_20_is_clamped(method):
    trainer = tensor([[0.0, -1.0]])
    sampler = tensor([[-1500.0, -1.0]])
    weights = sampler_correction(trainer, sampler, torch.ones(1, 2), method=method, cap=1e9)
    torch.testing.assert_close(weights[0, 0], tensor(20.0).exp())
    sums, maxima = sampler_mismatch(trainer, sampler, torch.ones(1, 2))
    assert maxima.ratio.item() == pytest.approx(math.exp(20))
    assert sums.kl.item() == pytest.approx(math.expm1(20) - 20)
    assert maxima.logprob_diff.item() == 1500


@pytest.mark.parametrize(("cap", "first_row"), [(8.1, 8.0), (7.9, 0.0)])
def test_sequence_mask_drops_a_response_whose_ratio_exceeds_the_cap(cap, first_row):
    # 2 * 4 = 8 over the first response; 0.5 over the second, below every cap here
    trainer = tensor([[2.0, 4.0, 99.0], [0.5, 99.0, 99.0]]).log()
    weights = sampler_correction(trainer, torch.zeros(2, 3), MASK, method="sequence_mask", cap=cap)
    torch.testing.assert_close(weights, tensor([[first_row] * 3, [0.5] * 3]))


@pytest.mark.parametrize("method", ["token_truncate", "token_mask", "sequence_mask"])
def test_corrections_carry_no_gradient_and_no_padding(method):
    trainer = TRAINER.masked_fill(~MASK, math.nan).requires_grad_()
    weights = sampler_correction(trainer, SAMPLER, MASK, method=method, cap=2.0)
    assert not weights.requires_grad
    assert weights.isfinite().all()


def test_the_method_none_returns_none():
    assert sampler_correction(TRAINER, SAMPLER, MASK, method="none", cap=2.0) is None


def test_an_unknown_or_unresolved_correction_raises():
    for method in ("token_drop", "auto"):
        with pytest.raises(AssertionError, match=method):
            sampler_correction(TRAINER, SAMPLER, MASK, method=method, cap=2.0)


# Mean of log(sampler / policy) over a response: ln 2; (ln 4 + 0) / 2 = ln 2; 0.
SAMPLED = tensor([[0.4, 0.8, 0.5], [0.8, 0.5, 0.5], [0.3, 0.5, 0.5]]).log()
POLICY = tensor([[0.2, 0.4, 0.1], [0.2, 0.5, 0.1], [0.3, 0.1, 0.1]]).log()
OF_RESPONSE = tensor([[True, True, False], [True, True, False], [True, False, False]])


def dropped(advantages, max_kl):
    advantages_BT = tensor(advantages)[:, None].expand(3, 3)
    kept_BT = off_policy_mask(POLICY, SAMPLED, advantages_BT, OF_RESPONSE, max_kl=max_kl)
    return [not kept for kept in kept_BT[:, 0].tolist()]


def test_only_bad_responses_far_from_the_policy_are_dropped():
    assert dropped([-1.0, 1.0, -1.0], max_kl=0.69) == [True, False, False]
    assert dropped([-1.0, -1.0, -1.0], max_kl=0.69) == [True, True, False]
    assert dropped([-1.0, -1.0, -1.0], max_kl=0.70) == [False, False, False]  # ln 2 = 0.693


def test_the_mean_kl_of_a_dropped_response_has_its_sign():
    # The policy likes these tokens more than the sampler did: the mean is -ln 2, below every threshold.
    kept = off_policy_mask(SAMPLED, POLICY, torch.full((3, 3), -1.0), OF_RESPONSE, max_kl=0.0)
    assert kept.tolist() == [[1.0] * 3] * 3


def test_padding_does_not_affect_the_off_policy_mask():
    policy = POLICY.masked_fill(~OF_RESPONSE, math.nan)
    kept = off_policy_mask(policy, SAMPLED, torch.full((3, 3), -1.0), OF_RESPONSE, max_kl=0.1)
    assert kept[:, 0].tolist() == [0, 0, 1]
    nothing = torch.zeros(1, 1)
    assert off_policy_mask(nothing, nothing, nothing - 1, nothing, max_kl=0.0).tolist() == [[1.0]]
