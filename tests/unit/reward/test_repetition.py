import pytest

from grpo_cli.reward.terms.repetition import repetition_penalty


@pytest.mark.parametrize(
    ("text", "penalty"),
    [
        ("one two three four", 0.0),
        ("wait wait wait wait", -2 / 3),  # three bigrams, one distinct
        ("Go on go on", -1 / 3),  # go-on, on-go, go-on
        ("alone", 0.0),
        ("", 0.0),
    ],
)
def test_the_penalty_is_the_share_of_bigrams_that_repeat(text, penalty):
    assert repetition_penalty(text, ngram_size=2) == pytest.approx(penalty)
