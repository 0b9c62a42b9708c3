"""Reward functions of TRL's documentation run as they are there."""

import functools
import re
from dataclasses import replace

import pytest

from grpo_cli.config.template import TemplateConfig
from grpo_cli.reward.background import user_function
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.reward.trl import call_as_trl, is_for_trl, missing_columns
from grpo_cli.types import Columns, Completion, Problem

PLAIN = TemplateConfig(text="Q: {problem} A: <think>", response_prefix="<think>")
CHAT = TemplateConfig(text="{problem} Think.", chat=True, response_prefix="<think>")
SUM, POEM = (
    Problem("sum", "1+1?", "2"),
    Problem("poem", "Write.", "", extra=Columns({"task": "poem", "ground_truth": "9"})),
)


def completion(text, token_ids=()):
    return Completion(tuple(token_ids), (), text, truncated=False)


def call(function, *pairs, template=PLAIN, step=7):
    completions, problems = zip(*pairs, strict=True)
    return call_as_trl(function, template, completions, problems, step)


# ------------------------------------------------------------ the functions of TRL's documentation


def longer(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def well_formed(completions, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(r"^<think>.*?</think><answer>.*?</answer>$", content) else 0.0 for content in contents]


def boxed(completions, ground_truth, **kwargs):
    matches = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    contents = [match.group(1) if match else "" for match in matches]
    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth, strict=True)]


def only_poems(prompts, completions, task, **kwargs):
    return [float(len(prompt)) if t == "poem" else None for prompt, t in zip(prompts, task, strict=True)]


async def not_empty(prompts, completions, **kwargs):
    return [1.0 if completion else 0.0 for completion in completions]


def logging(completions, ground_truth, log_extra=None, log_metric=None, **kwargs):
    log_extra("golden_answer", list(ground_truth))
    log_metric("accuracy", 0.5)
    return [0.5] * len(completions)


def curriculum(completions, trainer_state, **kwargs):
    return [float(trainer_state.global_step)] * len(completions)


@pytest.mark.parametrize(
    ("function", "template", "values"),
    [
        (longer, PLAIN, [2.0, 1.0]),
        (well_formed, CHAT, [1.0, 0.0]),
        (boxed, PLAIN, [0.0, 1.0]),
        (only_poems, PLAIN, [None, float(len("Q: Write. A: <think>"))]),
        (not_empty, PLAIN, [1.0, 1.0]),
        (logging, PLAIN, [0.5, 0.5]),
        (curriculum, PLAIN, [7.0, 7.0]),
    ],
)
def test_a_function_of_trls_documentation_gives_its_values(function, template, values):
    first, second = completion(" a</think><answer>2</answer>", (3, 4)), completion(r"\boxed{9}", (5,))
    assert is_for_trl(function)
    assert call(function, (first, SUM), (second, POEM), template=template) == values


# ------------------------------------------------------------ arguments


def everything(**arguments):
    return arguments


def test_without_a_chat_prompts_and_completions_are_texts_that_together_are_what_the_model_sees():
    seen = call(lambda completions, **rest: rest | {"completions": completions}, (completion(" ok", (3,)), SUM))
    assert seen["prompts"] == ["Q: 1+1? A: <think>"]
    assert seen["completions"] == [" ok"]
    assert seen["completion_ids"] == [[3]]


def test_in_a_chat_they_are_turns():
    seen = call(everything, (completion(" ok"), SUM), template=CHAT)
    assert seen["prompts"] == [[{"role": "user", "content": "1+1? Think."}]]
    assert seen["completions"] == [[{"role": "assistant", "content": "<think> ok"}]]


def test_columns_are_lists_and_the_problems_own_values_give_way_to_a_column_of_that_name():
    extra = Columns({"hint": "add", "answer": "#### 2", "prompt": "left out, as in TRL"})
    seen = call(everything, (completion("x"), replace(SUM, extra=extra)), (completion("y"), SUM))
    assert (seen["id"], seen["problem"]) == (["sum", "sum"], ["1+1?", "1+1?"])
    assert seen["hint"] == ["add", None]
    assert seen["answer"] == ["#### 2", None]
    assert "prompt" not in seen


def test_a_function_gets_only_the_arguments_that_it_takes():
    assert call(lambda completions, answer: [completions, answer], (completion("x"), SUM)) == [["x"], ["2"]]


def test_the_columns_that_a_function_must_have_are_known_before_it_is_called():
    def reward(completions, hint, level, answer, trainer_state, log_extra, tried=0, *others, deep, **columns):
        raise AssertionError

    assert missing_columns(reward, replace(SUM, extra=Columns({"hint": "add"}))) == ["level", "deep"]


# ------------------------------------------------------------ which functions are TRL's


class Reward:
    def __call__(self, prompts, completions, **kwargs):
        return [1.0]


@pytest.mark.parametrize(
    ("function", "is_trls"),
    [
        (lambda completions, **kwargs: [], True),
        (lambda prompts, completions, answer: [], True),
        (lambda completion_ids, **kwargs: [], True),
        (Reward(), True),
        (functools.partial(lambda weight, completions, **kwargs: [], 2), True),
        (lambda completion, problem: 1.0, False),
        (lambda completions, problems: [], False),
        (lambda responses, tasks: [], False),
        (max, False),  # has no signature
    ],
)
def test_a_function_is_recognised_by_the_names_of_its_parameters(function, is_trls):
    assert is_for_trl(function) is is_trls


def test_none_from_a_trl_function_means_that_the_term_does_not_apply(tmp_path):
    (tmp_path / "rewards.py").write_text("def skip(completions, **columns): return [None for _ in completions]\n")
    term = user_function("mine", FunctionTerm(function=f"{tmp_path}/rewards.py:skip"), PLAIN)
    assert term.submit(completion("x"), SUM, 1).result(timeout=60) is None
    term.close()
