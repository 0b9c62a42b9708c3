from itertools import permutations
from math import isnan, sqrt

import pytest

from grpo_cli.choices import Language
from grpo_cli.evaluation.measures import accuracy_curve, measure
from grpo_cli.evaluation.samples import Sample, right_by_problem
from grpo_cli.types import Verdict

OK, WRONG, UNPARSABLE, TIMEOUT = Verdict.correct, Verdict.wrong, Verdict.unparsable, Verdict.timeout


def sample(id="p", number=0, verdict=WRONG, extracted="0", num_tokens=10, truncated=False, **other):
    fields = {"benchmark": "b", "seed": 0, "text": "", "well_formed": True} | other
    return Sample(
        id=id,
        sample=number,
        verdict=verdict,
        extracted=extracted,
        num_tokens=num_tokens,
        truncated=truncated,
        **fields,
    )


def answered(id, *answers):
    """Samples of a problem: `!` marks a right answer, `-` stands for no answer."""
    return [
        sample(id, number, extracted=None, verdict=UNPARSABLE)
        if answer == "-"
        else sample(id, number, extracted=answer.rstrip("!"), verdict=OK if "!" in answer else WRONG)
        for number, answer in enumerate(answers)
    ]


def never(one, other):
    return False


def as_numbers(one, other):
    return float(one) == float(other)


def test_with_c_of_n_right_the_numbers_equal_the_closed_form():
    metrics = measure(answered("p", "7!", "8", "8", "8") + answered("q", "5!", "5!", "5!", "4"), never)
    assert metrics["avg"] == metrics["pass@1"] == 0.5  # (1/4 + 3/4) / 2
    assert metrics["pass@2"] == 0.75  # (1 - 3/6 and 1 - 0) / 2
    assert metrics["pass@4"] == 1
    # One of 4 right: 3 of 6 pairs are tied, which gives 1/4. One of 4 wrong: 3 are tied and 3 right, which gives 3/4.
    assert metrics["maj@2"] == 0.5
    assert metrics["maj@4"] == 0.5  # lost, and won
    assert "maj@1" not in metrics


def test_the_standard_error_is_over_problems():
    metrics = measure(answered("p", "1!", "2") + answered("q", "1!", "1!"), never)
    # 1/2 and 1: mean 3/4, variance 1/8, over two problems 1/16; the resampled mean is 1/2, 3/4 or 1
    assert (metrics["avg"], metrics["avg_se"]) == (0.75, pytest.approx(0.25))
    assert (metrics["avg_low"], metrics["avg_high"]) == (0.5, 1)


def test_samples_of_one_problem_do_not_count_as_independent():
    # 8 samples, but two problems, of which one is always solved: sqrt(1/2 / 2), not sqrt(2/7 / 8).
    metrics = measure(answered("p", *["1!"] * 4) + answered("q", *["2"] * 4), never)
    assert metrics["avg_se"] == pytest.approx(sqrt(1 / 4))


def test_one_problem_has_no_standard_error():
    assert isnan(measure(answered("p", "1!", "2"), never)["avg_se"])


def test_k_takes_the_powers_of_two_and_n():
    metrics = measure(answered("p", *["1!"] * 6) + answered("q", *["1!"] * 6), never)
    assert [name for name in metrics if "@" in name] == [
        *("pass@1", "pass@2", "pass@4", "pass@6"),
        *("maj@2", "maj@4", "maj@6"),
    ]


def test_a_power_of_two_is_not_listed_twice():
    metrics = measure(answered("p", "1!", "1!") + answered("q", "1!", "2"), never)
    assert [name for name in metrics if "@" in name] == ["pass@1", "pass@2", "maj@2"]


def test_k_stops_at_the_fewest_samples_of_a_problem_and_uses_all_of_each():
    samples = answered("p", "1!", "2") + answered("q", "1!", "2", "3", "4")
    metrics = measure(samples, never)
    assert [name for name in metrics if name.startswith("pass")] == ["pass@1", "pass@2"]
    assert metrics["pass@2"] == 0.75  # (1 and 1 - 3/6) / 2
    assert metrics["avg"] == 0.375  # (1/2 + 1/4) / 2: a problem weighs the same however often it was sampled
    assert accuracy_curve(samples) == [0.375, 0.75]


def test_the_curve_is_pass_at_every_k():
    # 1 of 4 right: k / 4
    assert accuracy_curve(answered("p", "1!", "2", "2", "2")) == [0.25, 0.5, 0.75, 1]


def test_one_sample_has_no_vote():
    assert not [name for name in measure(answered("p", "1!"), never) if name.startswith("maj")]


def test_answers_that_cannot_be_compared_have_no_vote():
    assert not [name for name in measure(answered("p", "1!", "1!"), None) if name.startswith("maj")]


def test_equal_answers_vote_together():
    samples = answered("p", "0.5!", "3", ".5!", "3", "0.50!")
    assert measure(samples, as_numbers)["maj@5"] == 1  # 3 to 2
    assert measure(samples, never)["maj@5"] == 0  # 1, 2, 1, 1


def near(one, other):
    return abs(ord(one) - ord(other)) < 2


@pytest.mark.parametrize("answers", [("a!", "b!", "c"), ("b!", "b!", "a!", "c", "d"), ("a", "b!", "b!", "c", "c")])
def test_the_vote_does_not_depend_on_the_order_of_the_samples(answers):
    # b equals a and c, but a does not equal c, so the order of comparison could matter.
    votes = {measure(answered("p", *order), near)[f"maj@{len(order)}"] for order in permutations(answers)}
    assert len(votes) == 1


def test_the_most_frequent_text_leads_and_the_text_itself_decides_between_equals():
    # b leads, with a and c: 4 votes to d's 2
    assert measure(answered("p", "a", "c", "d", "d", "b!", "b!"), near)["maj@6"] == 1
    # all once: a leads, with b; then c: 2 votes to 1
    assert measure(answered("p", "c", "b!", "a!"), near)["maj@3"] == 1


def test_a_group_is_right_if_its_most_frequent_text_is():
    def same(one, other):
        return True

    assert measure(answered("p", "2", "1!", "1!"), same)["maj@3"] == 1
    assert measure(answered("p", "1!", "2", "2"), same)["maj@3"] == 0


def test_a_sample_without_an_answer_does_not_vote():
    right = sample(number=0, verdict=OK, extracted="1")
    silent = [
        sample(number=1, verdict=WRONG, extracted=None),
        sample(number=2, verdict=WRONG, extracted="2", truncated=True),
        sample(number=3, verdict=UNPARSABLE, extracted="2"),
        sample(number=4, verdict=UNPARSABLE, extracted=None, skipped="too long"),
    ]
    wrong = sample(number=5, verdict=WRONG, extracted="3")
    # Of six, two vote: they tie.
    assert measure([right, *silent, wrong], never)["maj@6"] == 0.5
    assert measure([right, *silent], never)["maj@5"] == 1


def test_an_answer_on_which_the_grader_ran_out_of_time_votes():
    samples = [
        sample(number=0, verdict=OK, extracted="1"),
        *(sample(number=n, verdict=TIMEOUT, extracted="x^x") for n in (1, 2)),
    ]
    assert measure(samples, never)["maj@3"] == 0


def test_only_distinct_answers_are_compared_and_each_pair_once():
    asked = []

    def same(one, other):
        asked.append((one, other))
        return False

    measure(answered("p", "1!", "2", "1!", "2", "-", "3", "2"), same)
    assert asked == [("2", "1"), ("2", "3"), ("1", "3")]


def test_nothing_is_compared_if_all_votes_are_right_or_all_are_wrong():
    def never_called(one, other):
        raise AssertionError

    metrics = measure(answered("p", "1!", "1.0!", "-") + answered("q", "1", "2", "-"), never_called)
    assert metrics["maj@2"] == 0.5  # one of two voters is in each pair
    assert metrics["maj@3"] == 0.5


def test_every_sample_stays_in_the_denominator():
    samples = [
        sample("p", verdict=OK, num_tokens=4),
        sample("q", verdict=UNPARSABLE, num_tokens=20, truncated=True, well_formed=False),
        sample("r", verdict=TIMEOUT, num_tokens=6),
        sample("s", verdict=UNPARSABLE, num_tokens=0, well_formed=False, skipped="too long"),
    ]
    metrics = measure(samples, never)
    shares = {name: metrics[name] for name in ("avg", "truncated", "well_formed", "unparsable", "timeout", "skipped")}
    assert shares == {
        "avg": 0.25,
        "truncated": 0.25,
        "well_formed": 0.5,
        "unparsable": 0.5,
        "timeout": 0.25,
        "skipped": 0.25,
    }
    assert (metrics["num_problems"], metrics["num_samples"]) == (4, 4)
    # Skipped samples have no length: (4 + 20 + 6) / 3 and (20 + 6) / 2.
    assert (metrics["length"], metrics["length_correct"], metrics["length_wrong"]) == (10, 4, 13)


def test_the_mean_length_of_no_responses_is_left_out():
    assert "length_correct" not in measure([sample(), sample("q")], never)
    assert "length_wrong" not in measure([sample(verdict=OK), sample("q", verdict=OK)], never)
    skipped = sample(verdict=UNPARSABLE, num_tokens=0, skipped="too long")
    assert measure([skipped], never)["length"] == 0


def test_the_share_of_a_language_is_a_mean_over_responses():
    # 1, 1/4 and 0: letters of tags and skipped samples are not counted
    texts = ["<think> no wait </think>", "<think> n нет </think>", "<think> нет </think>"]
    samples = [sample(number=number, text=text) for number, text in enumerate(texts)]
    skipped = sample(number=3, verdict=UNPARSABLE, num_tokens=0, skipped="too long")
    assert measure([*samples, skipped], never, Language.en)["language"] == pytest.approx(5 / 12)
    assert "language" not in measure(samples, never)
    assert "language" not in measure([skipped], never, Language.en)


def test_right_by_problem_keeps_the_order_of_the_problems():
    samples = answered("q", "1!", "2") + answered("p", "1", "2", "1!")
    assert right_by_problem([samples[0], *samples[2:], samples[1]]) == {"q": (2, 1), "p": (3, 1)}
    assert list(right_by_problem(samples)) == ["q", "p"]
