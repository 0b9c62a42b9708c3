from dataclasses import replace

import pytest

from grpo_cli.choices import KeepRule, Language
from grpo_cli.config.sampling import SampleConfig
from grpo_cli.rejection.keep_rules import by_difficulty, draw_pairs, jaccard, keep, word_ngrams
from grpo_cli.types import Verdict

OK, WRONG, TIMEOUT = Verdict.correct, Verdict.wrong, Verdict.timeout
CORRECT, WELL_FORMED, ONE_LANGUAGE = KeepRule.correct, KeepRule.well_formed, KeepRule.one_language
RIGHT = {"verdict": OK, "text": "one two three four", "num_tokens": 4}


RULES = [
    ("correct", {}, {}, True),
    ("correct", {}, {"verdict": WRONG}, False),
    ("correct", {}, {"verdict": TIMEOUT}, False),
    ("truncated", {"keep": []}, {"truncated": True}, False),
    ("skipped", {"keep": []}, {"skipped": "too long"}, False),
    ("correct", {"keep": []}, {"verdict": WRONG}, True),
    ("well_formed", {"keep": [WELL_FORMED]}, {"well_formed": False}, False),
    ("well_formed", {"keep": [CORRECT]}, {"well_formed": False}, True),
    ("min_tokens", {"min_tokens": 4}, {}, True),
    ("min_tokens", {"min_tokens": 5}, {}, False),
    ("max_tokens", {"max_tokens": 4}, {}, True),
    ("max_tokens", {"max_tokens": 3}, {}, False),
    ("one_language", {"keep": [ONE_LANGUAGE]}, {"text": "wait, нет"}, False),
    ("one_language", {"keep": [ONE_LANGUAGE]}, {"text": "<think> нет </think> <answer> 2 </answer>"}, True),
    ("one_language", {"keep": [ONE_LANGUAGE], "language": Language.en}, {"text": "<think> нет </think>"}, False),
    ("one_language", {"keep": [ONE_LANGUAGE], "language": Language.ru}, {"text": "<think> нет </think>"}, True),
    # 19 of 20 letters are 95 %, 18 of 19 are less; Greek letters are mathematics and do not count as a second language
    ("one_language", {"keep": [ONE_LANGUAGE], "language": Language.en}, {"text": "a" * 19 + "λ"}, True),
    ("one_language", {"keep": [ONE_LANGUAGE], "language": Language.en}, {"text": "a" * 18 + "λ"}, False),
]


@pytest.mark.parametrize(("rule", "settings", "fields", "passes"), RULES)
def test_each_rule_drops_and_counts_the_responses_that_break_it(rule, settings, fields, passes, sample):
    found = keep([sample("p", **(RIGHT | fields))], SampleConfig(**settings))
    assert len(found.samples) == passes
    assert sum(found.dropped.values()) == found.dropped.get(rule, 0) == (not passes)


def test_a_response_is_counted_for_the_first_rule_that_it_breaks(sample):
    bad = sample("p", verdict=WRONG, well_formed=False, num_tokens=1)
    found = keep([bad], SampleConfig(keep=[WELL_FORMED, CORRECT], min_tokens=2))
    assert found.dropped == {
        **{"skipped": 0, "truncated": 0, "well_formed": 1, "correct": 0, "min_tokens": 0},
        "max_similarity": 0,
    }


def test_an_exact_repeat_is_dropped_and_the_first_by_number_kept(sample):
    samples = [sample("p", number, **RIGHT) for number in (2, 0, 1)] + [sample("q", 0, **RIGHT)]
    found = keep(samples, SampleConfig())
    assert [(one.id, one.sample) for one in found.samples] == [("p", 0), ("q", 0)]  # q: another problem
    assert found.dropped["max_similarity"] == 2


def test_at_max_similarity_1_only_equal_texts_are_repeats(sample):
    samples = [sample("p", number, verdict=OK, text=text) for number, text in enumerate(("a b", "a  b", "b a"))]
    assert len(keep(samples, SampleConfig()).samples) == 3


def test_a_repeat_of_a_dropped_response_is_kept(sample):
    samples = [sample("p", 0, **(RIGHT | {"truncated": True})), sample("p", 1, **RIGHT)]
    assert [one.sample for one in keep(samples, SampleConfig()).samples] == [1]


def test_near_duplicates_share_word_3_grams(sample):
    # abc bcd cde def against abc bcd cde deX: 3 in common of 5
    one, other = "a b c d e f", "a b c d e X"
    assert jaccard(word_ngrams(one), word_ngrams(other)) == 3 / 5
    samples = [sample("p", 0, verdict=OK, text=one), sample("p", 1, verdict=OK, text=other)]
    assert len(keep(samples, SampleConfig(max_similarity=0.61)).samples) == 2
    assert len(keep(samples, SampleConfig(max_similarity=0.6)).samples) == 1


def test_texts_shorter_than_an_ngram_are_compared_whole():
    assert jaccard(word_ngrams("a b"), word_ngrams("a b")) == 1
    assert jaccard(word_ngrams("a b"), word_ngrams("a c")) == 0
    assert jaccard(word_ngrams(""), word_ngrams("")) == 1


def test_per_problem_keeps_the_first_responses_that_pass_all_other_rules(sample):
    texts = ["x", "a", "a", "b", "c"]  # the first is wrong, the third a repeat
    samples = [sample("p", number, verdict=OK if number else WRONG, text=text) for number, text in enumerate(texts)]
    found = keep(samples, SampleConfig(per_problem=2))
    assert [one.sample for one in found.samples] == [1, 3]
    dropped = {"correct": 1, "max_similarity": 1, "per_problem": 1}
    assert {rule: number for rule, number in found.dropped.items() if number} == dropped


@pytest.fixture
def sampled(sample):
    """For p two right responses and three others, for q only right ones, for r only wrong ones."""
    verdicts = {"p": [OK, OK, WRONG, Verdict.unparsable, TIMEOUT], "q": [OK, OK], "r": [WRONG, WRONG]}
    return [
        sample(id, number, verdict=verdict, text=f"{id}{number}")
        for id, verdicts_of_problem in verdicts.items()
        for number, verdict in enumerate(verdicts_of_problem)
    ]


def named(pairs):
    return {(chosen.text, rejected.text) for chosen, rejected in pairs}


def test_pairs_are_of_a_kept_and_a_wrong_response_to_one_problem(sampled):
    kept = keep(sampled, SampleConfig()).samples
    every = {("p0", "p2"), ("p0", "p3"), ("p1", "p2"), ("p1", "p3")}  # not p4, which may be right
    assert named(draw_pairs(sampled, kept, 9, seed=0)) == every
    assert len(named(draw_pairs(sampled, kept, 3, seed=0))) == 3
    assert draw_pairs(sampled, kept, 0, seed=0) == []
    assert named(draw_pairs(sampled, kept[1:], 9, seed=0)) == {("p1", "p2"), ("p1", "p3")}  # p0 is not kept


def test_the_pairs_of_a_problem_depend_on_the_seed_but_not_on_other_problems(sampled):
    kept = keep(sampled, SampleConfig()).samples
    drawn = [named(draw_pairs(sampled, kept, 1, seed)) for seed in range(20)]
    assert drawn == [named(draw_pairs(sampled[:5], kept[:2], 1, seed)) for seed in range(20)]
    assert len(set().union(*drawn)) == 4


def test_a_wrong_response_is_never_the_chosen_one_even_if_it_is_kept(sampled):
    kept = keep(sampled, SampleConfig(keep=[])).samples
    assert len(kept) == 9
    assert {chosen for chosen, _ in named(draw_pairs(sampled, kept, 9, seed=0))} == {"p0", "p1"}


def test_an_unjudged_or_skipped_response_is_never_the_rejected_one(sample):
    right = sample("p", 0, **RIGHT)
    others = [
        sample("p", 1, verdict=Verdict.unjudged),
        sample("p", 2, verdict=Verdict.unparsable, skipped="too long"),
    ]
    assert draw_pairs([right, *others], [right], 9, seed=0) == []


def test_difficulty_is_the_share_of_right_samples(sampled):
    kept = [sampled[0], sampled[5], sampled[6]]
    assert by_difficulty([*sampled, replace(sampled[7], id="s")], kept) == {
        "none": {"problems": 2, "share": 0.5, "kept": 0},
        "some": {"problems": 1, "share": 0.25, "kept": 1},
        "all": {"problems": 1, "share": 0.25, "kept": 2},
    }
