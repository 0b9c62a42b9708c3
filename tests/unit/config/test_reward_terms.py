import pytest

from grpo_cli.choices import CodeScoring, Language
from grpo_cli.errors import ConfigError
from grpo_cli.reward.terms import AccuracyTerm, CodeTerm, FunctionTerm, typed_terms
from grpo_cli.reward.terms.format import FormatTerm
from grpo_cli.reward.terms.language import LanguageTerm


def test_terms_become_their_dataclasses_in_order():
    terms = {
        "format": {"weight": 1},
        "accuracy": {},
        "language": {"language": "zh"},
        "code": {"scoring": "share", "timeout_s": 3},
        "mine": {"function": "m:f", "weight": -0.5, "batch": True},
    }
    typed = typed_terms(terms)
    assert list(typed.items()) == [
        ("format", FormatTerm(weight=1.0)),
        ("accuracy", AccuracyTerm(weight=1.0)),
        ("language", LanguageTerm(language=Language.zh)),
        ("code", CodeTerm(scoring=CodeScoring.share, timeout_s=3.0)),
        ("mine", FunctionTerm(function="m:f", weight=-0.5, batch=True)),
    ]


@pytest.mark.parametrize(
    ("terms", "seen", "fix"),
    [
        ({"acuracy": {}}, "reward.terms.acuracy", "Did you mean accuracy?"),
        ({"mine": {"weight": 1.0}}, "reward.terms.mine", "reward.terms.mine.function=my_rewards.py:my_reward"),
        ({"accuracy": {"wieght": 1}}, "reward.terms.accuracy.wieght", "Did you mean weight?"),
        ({"accuracy": {"weight": "x"}}, "reward.terms.accuracy.weight=x", "must be a number."),
        ({"accuracy": {"weight": True}}, "reward.terms.accuracy.weight=true", "must be a number."),
        ({"accuracy": {"weight": float("nan")}}, "reward.terms.accuracy.weight=nan", "must be finite"),
        ({"accuracy": 1.0}, "reward.terms.accuracy=1.0", "Set reward.terms.accuracy.weight=1.0"),
        ({"language": {"language": "english"}}, "reward.terms.language.language=english", "must be one of en, zh"),
        ({"overlong": {"cache_tokens": -1}}, "reward.terms.overlong.cache_tokens=-1", "must be 0 or more"),
        (
            {"overlong": {"cache_tokens": 2.5}},
            "reward.terms.overlong.cache_tokens=2.5",
            "must be a whole number.",
        ),
        ({"model": {}}, "reward.terms.model.path", "is not set"),
        ({"model": {"path": "x", "on": "some"}}, "reward.terms.model.on=some", "must be one of general, all"),
        ({"format": {"from_step": -1}}, "reward.terms.format.from_step=-1", "must be 0 or more"),
        (
            {"format": {"from_step": 9, "to_step": 8}},
            "to_step=8 is before reward.terms.format.from_step=9",
            "to_step=0",
        ),
        ({"format": {"function": "m:f"}}, "reward.terms.format.function", "another name"),
    ],
)
def test_each_fault_names_its_key_and_its_fix(terms, seen, fix):
    with pytest.raises(ConfigError) as error:
        typed_terms(terms)
    assert seen in str(error.value)
    assert fix in str(error.value)


@pytest.mark.parametrize(
    ("from_step", "to_step", "steps"),
    [(0, 0, [None, 1, 2, 3, 4]), (3, 0, [3, 4]), (0, 2, [1, 2]), (2, 3, [2, 3]), (3, 3, [3])],
)
def test_a_term_counts_from_its_first_to_its_last_step(from_step, to_step, steps):
    term = FormatTerm(from_step=from_step, to_step=to_step)
    assert [step for step in (None, 1, 2, 3, 4) if term.counts_at(step)] == steps


def test_all_faults_are_listed_together():
    with pytest.raises(ConfigError) as error:
        typed_terms({"acuracy": {}, "format": {"weight": None}, "overlong": {"cache": 1, "cache_tokens": -1}})
    assert len(str(error.value).splitlines()) == 4
