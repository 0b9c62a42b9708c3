import pytest

from grpo_cli.reward.terms.length import cosine_length, length_penalty, overlong_penalty


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (130, -1.0)]
)
def test_overlong_falls_linearly_over_the_cache(length, penalty):
    # DAPO, eq. 13, with L_max 100 and L_cache 20
    assert overlong_penalty(length, max_new_tokens=100, cache_tokens=20) == penalty


def test_length_penalty_is_minus_the_share_of_the_limit():
    assert length_penalty(25, max_new_tokens=100) == -0.25


@pytest.mark.parametrize(("length", "value"), [(0, 1.0), (50, 0.75), (100, 0.5), (200, 0.5)])
def test_the_cosine_term_changes_from_short_to_long(length, value):
    assert cosine_length(length, max_new_tokens=100, short=1.0, long=0.5) == pytest.approx(value)


def test_a_longer_wrong_answer_may_have_a_higher_value():
    assert cosine_length(100, max_new_tokens=100, short=-1.0, long=-0.5) == pytest.approx(-0.5)
