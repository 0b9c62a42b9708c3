import json
import threading
from dataclasses import replace

import numpy
import pytest
import torch

from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import TrainingError
from grpo_cli.reward.background import Background, user_function
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.types import Completion, Problem

PROBLEM = Problem("p", "What is 17 + 26?", "43")


def completion(text: str) -> Completion:
    return Completion((), (), text, truncated=False)


def test_a_function_is_called_with_at_most_batch_size_waiting_responses():
    batches, gate = [], threading.Event()

    def lengths(completions, problems, step):
        gate.wait()
        batches.append(len(completions))
        return [len(each.text) for each in completions]

    background = Background("mine", lengths, batch_size=3)
    futures = [background.submit(completion("x" * n), PROBLEM, 1) for n in range(5)]
    gate.set()
    assert [future.result() for future in futures] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sum(batches) == 5
    assert max(batches) <= 3
    assert len(batches) < 5
    background.close()


def result(background, *completions):
    """The values of the responses, to problems `p0`, `p1`, ..."""
    gate = threading.Event()
    background._thread.submit(gate.wait)  # so that one call gets all responses
    problems = [replace(PROBLEM, id=f"p{n}") for n in range(len(completions))]
    futures = [background.submit(*pair, 1) for pair in zip(completions, problems, strict=True)]
    gate.set()
    try:
        return [future.result(timeout=60) for future in futures]
    finally:
        background.close()


def test_the_error_of_a_function_shows_the_problem_the_response_and_only_the_users_lines():
    def inner_length(text):
        return json.loads(text)["length"]

    def reward(completions, problems, step):
        return [inner_length(each.text) for each in completions]

    with pytest.raises(TrainingError) as failure:
        result(Background("mine", reward, 8), completion('{"length": 3}'), completion("no JSON"), completion('{"x"'))
    lines = [line for line in str(failure.value).splitlines() if not set(line) <= set(" ~^")]
    assert lines == [
        "reward.terms.mine failed, for a response to problem p1:",
        f'  File "{__file__}", line {reward.__code__.co_firstlineno + 1}, in reward',
        "    return [inner_length(each.text) for each in completions]",
        f'  File "{__file__}", line {reward.__code__.co_firstlineno + 1}, in <listcomp>',
        "    return [inner_length(each.text) for each in completions]",
        f'  File "{__file__}", line {inner_length.__code__.co_firstlineno + 1}, in inner_length',
        '    return json.loads(text)["length"]',
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "The response: 'no JSON'",
    ]


def test_responses_that_fail_only_together_are_counted():
    def reward(completions, problems, step):
        return [1.0] if len(completions) == 1 else [][0]

    with pytest.raises(TrainingError, match="for a response to problem p0 and 1 others in one call"):
        result(Background("mine", reward, 8), completion("x"), completion("y"))


def test_the_middle_of_a_long_response_is_left_out_of_an_error():
    with pytest.raises(TrainingError) as failure:
        result(Background("mine", lambda completions, problems, step: 1 / 0, 1), completion("a" * 5000 + "z"))
    assert len(str(failure.value)) < 1000
    assert "aaz' (5001 characters)" in str(failure.value)


def test_the_error_of_a_function_in_an_installed_package_shows_lines_of_the_package():
    with pytest.raises(TrainingError, match=r"linalg\.py"):
        result(Background("mine", numpy.linalg.norm, 1), completion("x"))


@pytest.mark.parametrize(
    ("values", "fault"),
    [([float("nan")], "nan"), ([None], "None"), ([], "0 values for 1"), (["1"], "'1'"), (None, "returned None")],
)
def test_a_value_that_is_not_a_finite_number_is_rejected(values, fault):
    background = Background("mine", lambda completions, problems, step: values, batch_size=1)
    with pytest.raises(TrainingError, match=fault):
        background.submit(completion("x"), PROBLEM, 1).result()
    background.close()


def test_none_is_a_value_only_of_terms_that_may_skip():
    background = Background("mine", lambda completions, problems, step: [None, 1], 8, may_skip=True)
    assert result(background, completion("x"), completion("y")) == [None, 1.0]


@pytest.mark.parametrize(
    "values", [numpy.array([1, 2]), numpy.array([1, 2], dtype="float32"), torch.tensor([1.0, 2.0])]
)
def test_values_may_be_an_array(values):
    background = Background("mine", lambda completions, problems, step: values, 8)
    assert result(background, completion("x"), completion("y")) == [1.0, 2.0]


def test_closing_cancels_waiting_responses():
    gate = threading.Event()
    background = Background("mine", lambda completions, problems, step: [float(gate.wait())], batch_size=1)
    background.submit(completion("x"), PROBLEM, 1)
    waiting = background.submit(completion("y"), PROBLEM, 1)
    background.close()
    gate.set()
    assert waiting.cancelled()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_names_a_function_that_would_end_the_process(error):
    def give_up(completions, problems, step):
        raise error

    background = Background("mine", give_up, batch_size=1)
    with pytest.raises(
        TrainingError, match=r"reward\.terms\.mine tried to end the process, for a resp.* p0"
    ) as failure:
        result(background, completion("x"))  # without the check it would wait forever
    assert type(error).__name__ in str(failure.value)


def test_math_verify_works_in_a_users_function(tmp_path, monkeypatch):
    (tmp_path / "verifying_reward.py").write_text(
        "from math_verify import parse, verify\n"
        "def reward(completion, problem):\n"
        "    return float(verify(parse(f'${problem.answer}$'), parse(completion.text)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    term = user_function("mine", FunctionTerm(function="verifying_reward:reward"), TemplateConfig())
    problem = Problem("p", "What is half of one?", r"\frac{1}{2}")
    values = [term.submit(completion(text), problem, 1).result(timeout=60) for text in ("$0.5$", "$0.6$")]
    term.close()
    assert values == [1.0, 0.0]
