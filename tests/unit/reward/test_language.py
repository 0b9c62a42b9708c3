import pytest

from grpo_cli.choices import Language
from grpo_cli.reward.terms.language import language_consistency


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("<think>so it is</think> <answer>是</answer>", Language.en, 1.0),
        ("<think>so 所以</think>", Language.en, 0.5),
        ("<think>所以</think>", Language.zh, 1.0),
        ("да, yes", Language.ru, 0.4),
        ("<think>1 + 2 = 3</think> words", Language.en, 0.0),  # no letters, no credit
        ("", Language.en, 0.0),
    ],
)
def test_the_value_is_the_share_of_the_reasonings_letters_in_the_languages_script(text, language, share):
    assert language_consistency(text, language) == share
