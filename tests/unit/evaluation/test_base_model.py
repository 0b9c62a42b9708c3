import pytest

from grpo_cli.choices import AnswerMarker
from grpo_cli.evaluation.base_model import answers_question, base_model_metrics, trainable_share
from grpo_cli.types import Verdict

RESPONSES = [
    (r"So it is $\boxed{4}$.", True),
    ("The answer is 4.", True),
    ("2 + 2 makes some number", False),  # states no answer
    ("The answer is 4.\n\nQuestion: What is 3 + 3?", False),  # continues with another question
    ("The answer is 4.\nHuman: thanks", False),
    ("The answer is 4.<|im_start|>user", False),
    ("The question is easy: the answer is 4", True),
]


@pytest.mark.parametrize(("text", "answers"), RESPONSES)
def test_a_response_answers_if_it_states_an_answer_and_stops(sample, text, answers):
    assert answers_question(sample("p", text=text), AnswerMarker.boxed) is answers


def test_a_truncated_response_does_not_answer(sample):
    assert not answers_question(sample("p", text=r"\boxed{4}", truncated=True), AnswerMarker.boxed)


def test_the_response_prefix_of_the_template_counts(sample):
    cut = sample("p", text="2 + 2 </think> <answer>4</answer>")
    assert answers_question(cut, AnswerMarker.answer_tag, prefix="<think>")


@pytest.fixture
def two_problems(sample):
    """p is solved by both samples, and the first one reflects; q is solved by one of two."""
    right = Verdict.correct
    return [
        sample("p", 0, text="Wait, let me recheck.", verdict=right, num_tokens=10),
        sample("p", 1, text="4", verdict=right, num_tokens=20),
        sample("q", 0, text="5", num_tokens=4),
        sample("q", 1, text="数 and letters", verdict=right, num_tokens=6),
    ]


def test_reflection_is_counted_by_response_and_by_problem(two_problems):
    metrics = base_model_metrics(two_problems, [True, True, False, True], [2])
    assert metrics["reflecting"] == 1 / 4
    assert metrics["reflecting_problems"] == 1 / 2
    assert (metrics["avg_reflecting"], metrics["avg_plain"]) == (1.0, 2 / 3)


def test_answering_and_mixed_languages_are_shares_of_responses(two_problems):
    metrics = base_model_metrics(two_problems, [True, True, False, True], [2])
    assert metrics["answering"] == 3 / 4
    assert metrics["mixed_languages"] == 1 / 4  # one Chinese character of eleven letters


def test_only_groups_with_right_and_wrong_responses_would_teach(two_problems):
    # G=2 of 2 samples: p's are equal, q's differ. G=4: 0 for p; for q at solve rate 1/2: 1 - 2/16.
    metrics = base_model_metrics(two_problems, [True] * 4, [2, 4])
    assert (metrics["mixed@2"], metrics["mixed@4"]) == (0.5, 0.4375)
    assert trainable_share(metrics, [2, 4]) == "50% of the prompts would teach at G=2; with G=4, at least 44%"
