import json

import pytest

from grpo_cli.errors import DataError
from grpo_cli.evaluation.responses import EngineResponder, Skipped, StoredResponder, questions
from grpo_cli.types import Completion, Problem, Prompt, Sampling

from .conftest import FakeEngine, fake_prompts

PROBLEMS = [Problem("p", "1 + 1?", "2"), Problem("q", "2 + 2?", "4")]
SAMPLING = Sampling(0.0, 1.0, 10)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_sample_has_its_own_seed_that_depends_on_no_other_sample():
    asked = questions("b", PROBLEMS, 2, seed=0)
    assert [(q.problem.id, q.sample) for q in asked] == [("p", 0), ("p", 1), ("q", 0), ("q", 1)]
    assert len({q.seed for q in asked}) == 4
    assert [q.seed for q in questions("b", PROBLEMS[1:], 3, seed=0)][:2] == [asked[2].seed, asked[3].seed]
    assert not {q.seed for q in asked} & {q.seed for q in questions("c", PROBLEMS, 2, seed=0)}
    assert not {q.seed for q in asked} & {q.seed for q in questions("b", PROBLEMS, 2, seed=1)}


def test_the_engine_gets_the_seeds_of_the_samples():
    engine, asked = FakeEngine(["2", "4"]), questions("b", PROBLEMS, 2, seed=0)
    responses = list(EngineResponder(engine, fake_prompts(PROBLEMS), SAMPLING, max_model_len=8)(asked))
    assert [response.text for _, response in responses] == ["2", "2", "4", "4"]
    assert engine.seeds == [question.seed for question in asked]


def test_a_prompt_that_fills_the_context_is_skipped_with_the_reason():
    prompts = [Prompt(PROBLEMS[0], "", (0,) * 8), Prompt(PROBLEMS[1], "", (1,) * 7)]
    respond = EngineResponder(FakeEngine(["2", "4"]), prompts, SAMPLING, max_model_len=8)
    responses = {question.problem.id: response for question, response in respond(questions("b", PROBLEMS, 1, 0))}
    assert responses["p"] == Skipped("the prompt has 8 tokens, and the context 8")
    assert responses["q"].text == "4"


def test_stored_responses_are_found_by_problem_and_number(tmp_path):
    rows = [
        {"benchmark": "b", "id": "p", "text": "first"},
        {"benchmark": "b", "id": "p", "text": "second"},
        {"benchmark": "b", "id": "q", "text": "cut", "truncated": True, "num_tokens": 3},
    ]
    stored = StoredResponder(write(tmp_path / "r.jsonl", rows))
    assert stored.num_samples("b", PROBLEMS) == 2
    responses = [response for _, response in stored(questions("b", PROBLEMS, 2, 0))]
    assert [r.text for r in responses[:3]] == ["first", "second", "cut"]
    assert responses[2] == Completion((0, 0, 0), (), "cut", True)
    assert responses[3] == Skipped("the file has no response with this number")  # counts as wrong


FAULTS = [
    ([{"benchmark": "b", "id": "z", "text": ""}], "1 responses match no problem of b, such as 'z'"),
    ([{"benchmark": "c", "id": "p", "text": ""}], "There are no responses to b"),
    ([{"benchmark": "b", "text": ""}], "line 1: there is no 'id'. A response is a JSON object"),
]


@pytest.mark.parametrize(("rows", "message"), FAULTS)
def test_stored_responses_without_a_problem_or_an_id_are_rejected(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        StoredResponder(write(tmp_path / "r.jsonl", rows)).num_samples("b", PROBLEMS)
