from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from grpo_cli.data.random_base import base_model_dir
from grpo_cli.evaluation.judge import Judge
from grpo_cli.model import BaseModel
from grpo_cli.types import Completion, Problem

PROBLEMS = [Problem("p", "What is 2 + 2?", "4"), Problem("long", "x" * 3000, "4")]


class YesToFour:
    """A judge that says yes if there is a 4 in the text; its tokens are bytes."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self.asked: list[str] = []

    def generate(self, requests, sampling):
        assert sampling.temperature == 0
        for index, request in enumerate(requests):
            self.asked.append(self._tokenizer.decode(request.token_ids))
            shown = self.asked[-1].partition("wrote after it.")[2].partition("Text:")[2].partition("Does the text")[0]
            yield index, Completion((), (), " Yes." if "4" in shown else "NO", truncated=False)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir())
    engine = YesToFour(tokenizer)
    return Judge(BaseModel(Path(), tokenizer, max_model_len=2500), engine, Console(quiet=True)), engine


def test_a_response_answers_if_the_judge_says_yes(judge, sample):
    ask, engine = judge
    assert ask([sample("p", text="It is 4."), sample("p", text="And what is 3 + 3?")], PROBLEMS) == [True, False]
    assert "What is 2 + 2?" in engine.asked[0]


def test_a_question_without_room_for_a_reply_counts_as_not_answered(judge, sample):
    ask, engine = judge
    assert ask([sample("long", text="4"), sample("p", text="4")], PROBLEMS) == [False, True]
    assert len(engine.asked) == 1


def test_the_judge_sees_both_ends_of_a_long_response(judge, sample):
    ask, engine = judge
    judged = Judge(BaseModel(Path(), ask.model.tokenizer, max_model_len=10_000), engine, Console(quiet=True))
    assert judged([sample("p", text="a" * 5000 + "4")], PROBLEMS) == [True]
    assert "\n...\n" in engine.asked[0]
    assert len(engine.asked[0]) < 5000
