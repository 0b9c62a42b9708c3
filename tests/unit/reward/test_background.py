import threading

import pytest

from grpo_cli.errors import ConfigError, TrainingError
from grpo_cli.reward.background import Background, user_function
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.types import Completion, Problem

PROBLEM = Problem("p", "What is 17 + 26?", "43")


def completion(text: str) -> Completion:
    return Completion((), (), text, truncated=False)


def test_a_function_is_called_with_at_most_batch_size_waiting_responses():
    batches, gate = [], threading.Event()

    def lengths(completions, problems):
        gate.wait()
        batches.append(len(completions))
        return [len(each.text) for each in completions]

    background = Background("mine", lengths, batch_size=3)
    futures = [background.submit(completion("x" * n), PROBLEM) for n in range(5)]
    gate.set()
    assert [future.result() for future in futures] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sum(batches) == 5
    assert max(batches) <= 3
    assert len(batches) < 5
    background.close()


def test_the_value_raises_what_the_function_raises():
    background = Background("mine", lambda completions, problems: 1 / 0, batch_size=1)
    with pytest.raises(ZeroDivisionError):
        background.submit(completion("x"), PROBLEM).result()
    background.close()


@pytest.mark.parametrize(
    ("values", "fault"), [([float("nan")], "nan"), ([None], "None"), ([], "0 values for 1"), (["1"], "'1'")]
)
def test_a_value_that_is_not_a_finite_number_is_rejected(values, fault):
    background = Background("mine", lambda completions, problems: values, batch_size=1)
    with pytest.raises(TrainingError, match=fault):
        background.submit(completion("x"), PROBLEM).result()
    background.close()


def test_closing_cancels_waiting_responses():
    gate = threading.Event()
    background = Background("mine", lambda completions, problems: [float(gate.wait())], batch_size=1)
    background.submit(completion("x"), PROBLEM)
    waiting = background.submit(completion("y"), PROBLEM)
    background.close()
    gate.set()
    assert waiting.cancelled()


def test_a_users_function_is_found_by_module_and_name():
    term = user_function("mine", FunctionTerm(function="math:isclose"))
    term.close()


@pytest.mark.parametrize("path", ["no_such_module:f", "math:no_such_function", "math:pi", "not a path"])
def test_a_function_that_cannot_be_found_is_reported_with_its_setting(path):
    with pytest.raises(ConfigError, match=r"reward\.terms\.mine\.function"):
        user_function("mine", FunctionTerm(function=path))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_names_a_function_that_would_end_the_process(error):
    def give_up(completions, problems):
        raise error

    background = Background("mine", give_up, batch_size=1)
    with pytest.raises(TrainingError, match=rf"reward\.terms\.mine tried to end the process: {type(error).__name__}"):
        background.submit(completion("x"), PROBLEM).result(timeout=60)  # without the check it would wait forever
    background.close()


@pytest.mark.parametrize("line", ["import sys; sys.exit(2)", "1 / 0", "def f(:"])
def test_an_error_names_a_module_that_fails_during_import(tmp_path, monkeypatch, line):
    (tmp_path / "failing_reward.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"reward\.terms\.mine\.function=failing_reward:f: its module fails"):
        user_function("mine", FunctionTerm(function="failing_reward:f"))


def test_math_verify_works_in_a_users_function(tmp_path, monkeypatch):
    (tmp_path / "verifying_reward.py").write_text(
        "from math_verify import parse, verify\n"
        "def reward(completion, problem):\n"
        "    return float(verify(parse(f'${problem.answer}$'), parse(completion.text)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    term = user_function("mine", FunctionTerm(function="verifying_reward:reward"))
    problem = Problem("p", "What is half of one?", r"\frac{1}{2}")
    values = [term.submit(completion(text), problem).result(timeout=60) for text in ("$0.5$", "$0.6$")]
    term.close()
    assert values == [1.0, 0.0]
