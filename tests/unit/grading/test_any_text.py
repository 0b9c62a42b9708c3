"""Scoring gives a score for any text that a model writes: it never raises an exception and always ends."""

import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo_cli.choices import AnswerMarker, Device
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.grading.math_grader import Undecided, judge
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Completion, Problem

TIMEOUT_S = 1.0
TERMS = {
    name: {} for name in ("accuracy", "format", "tag_count", "language", "repetition", "overlong", "cosine_length")
}
PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "{", "}", "(", ")", "[", "]", r"\{", r"\}", "$", "\\",
    r"\frac", r"\sqrt", r"\text{", r"\pm", r"\le", r"\cup", r"\begin{pmatrix}", r"\end{pmatrix}", "&", r"\\", "^", "_",
    "=", "<", ">", ",", ";", ":", "%", "!", "+", "-", "*", "/", ".", " ", "\n", "1", "42", "0", "x", "y", "e", "i",
    "or", "and", "is", "answer", r"\infty", r"\overline{", r"\sum_{k=1}^{n}", r"\int", "'", "9^{9^{9}}", "\u00bd",
    "\u0301", "\uff14", "\x00", "|", r"\lfloor", r"\log_", "cm", r"^\circ", "#### ",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
GOLDS = st.sampled_from(
    ["42", r"\frac{1}{2}", "x+y", "(1,2)", r"\{1,2,3\}", "[2,5)", r"x^2+y^2=1", r"5\text{ cm}", "A"]
)


@pytest.fixture(scope="module")
def rewards():
    config = RewardConfig(terms=TERMS, timeout_s=TIMEOUT_S, memory_gib=1.0)
    opened = {marker: Reward(config, TemplateConfig(answer=marker), 100, Device.cpu) for marker in AnswerMarker}
    yield opened
    for reward in opened.values():
        reward.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS, gold=GOLDS, grader=st.sampled_from(["math", "expression"]), tagged=st.booleans())
def test_any_text_gets_a_score_in_time(rewards, text, gold, grader, tagged):
    gold = "13 5 = 8" if grader == "expression" else gold
    completion = Completion((1, 2), (0.0, 0.0), f"<think>a</think> <answer>{text}</answer>" if tagged else text, False)
    started = time.perf_counter()
    for reward in rewards.values():
        score = reward.submit(Problem("p", "", gold, grader), completion).result(timeout=60)
        assert score.terms["accuracy"] == (score.verdict == "correct")
        assert set(score.terms) == set(TERMS)
    assert time.perf_counter() - started < len(rewards) * (TIMEOUT_S + 10)  # a busy machine starts processes slowly


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, gold=TEXTS)
def test_any_gold_and_answer_are_judged_or_left_to_sympy(text, gold):
    with suppress(Undecided):
        assert judge(gold, text).reason
