"""Judging of responses: all reference solutions are right, and all are wrong for the next problem."""

import json

import pytest

from grpo_cli.evaluation.completion import judged
from grpo_cli.evaluation.majority import answer_equality
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.responses import EngineResponder, Skipped, questions
from grpo_cli.types import Problem, Sampling, Verdict

from .conftest import FakeEngine, fake_prompts


def oracle_samples(problems, responses, reward, template, n=1):
    respond = EngineResponder(FakeEngine(responses), fake_prompts(problems), Sampling(0.0, 1.0, 10), max_model_len=8)
    return [one.sample(template) for one in judged(questions("b", problems, n, 0), respond, reward)]


@pytest.fixture(scope="module")
def math500(shared) -> list[Problem]:
    rows = [json.loads(line) for line in (shared / "data/eval/math500.jsonl").read_text().splitlines()]
    return [Problem(row["id"], row["problem"], row["answer"]) for row in rows]


def boxed(problems):
    return [rf"It follows that the answer is $\boxed{{{problem.answer}}}$." for problem in problems]


def test_the_reference_answers_score_100_percent_on_math500(math500, reward, template):
    samples = oracle_samples(math500, boxed(math500), reward, template)
    assert measure(samples, None)["avg"] == 1.0, [s.id for s in samples if s.verdict is not Verdict.correct]


def test_the_next_problems_answers_score_0_percent_on_math500(math500, reward, template):
    # The next answer that differs: neighbouring problems may have the same one.
    answers = [problem.answer for problem in math500]
    others = [next(a for a in answers[i + 1 :] + answers if not reward.same_answer(answers[i], a)) for i in range(500)]
    responses = [rf"The answer is $\boxed{{{other}}}$." for other in others]
    assert measure(oracle_samples(math500, responses, reward, template), None)["avg"] == 0.0


def test_a_sample_holds_the_response_and_its_grade(reward, template):
    problems = [Problem("p", "1 + 1?", "2"), Problem("q", "2 + 2?", "4")]
    first, second = oracle_samples(problems, ["The answer is 2.", "no idea"], reward, template)
    assert (first.extracted, first.verdict, first.num_tokens, first.well_formed) == ("2", Verdict.correct, 4, True)
    assert (second.extracted, second.verdict, second.well_formed) == (None, Verdict.unparsable, False)


def test_skipped_samples_stay_in_the_denominator(reward, template):
    problems = [Problem("p", "1 + 1?", "2"), Problem("q", "2 + 2?", "4")]
    asked = questions("b", problems, 1, 0)

    def respond(asked):
        yield from zip(asked[:1], [Skipped("too long")], strict=True)
        engine = EngineResponder(FakeEngine(["", "4"]), fake_prompts(problems), Sampling(0.0, 1.0, 10), 8)
        yield from engine(asked[1:])

    metrics = measure([one.sample(template) for one in judged(asked, respond, reward)], None)
    assert (metrics["avg"], metrics["skipped"], metrics["num_problems"]) == (0.5, 0.5, 2)


def test_mathematically_equal_answers_are_the_same_vote(reward):
    same = answer_equality("math", reward)
    assert same("1/2", r"\frac{1}{2}")
    assert not same("1/2", "1/3")
    assert answer_equality("expression", reward)("1 +2", "1  +2")
    assert answer_equality("code", reward) is None  # programs cannot be compared
