import pytest

from grpo_cli.config.reward import RewardConfig
from grpo_cli.errors import ConfigError
from grpo_cli.reward.functions import check_functions, load_function
from grpo_cli.reward.terms import FunctionTerm
from grpo_cli.types import Columns, Problem


def load(function):
    return load_function("mine", FunctionTerm(function=function))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_is_found_by_module_and_name():
    assert load("math:isclose")(1, 1)


def test_a_function_is_found_in_a_file_next_to_the_modules_that_it_imports(here):
    (here / "mine").mkdir()
    (here / "mine/shared_with_rewards.py").write_text("VALUE = 7.0\n")
    (here / "mine/json.py").write_text(
        "from dataclasses import dataclass\n"
        "from shared_with_rewards import VALUE\n"
        "@dataclass\nclass Value:\n    value: 'float' = VALUE\n"
        "def reward(completion, problem): return Value().value\n"
    )
    by_relative, by_full = load("mine/json.py:reward"), load(f"{here}/mine/json.py:reward")
    assert by_relative(None, None) == 7.0
    assert by_relative is by_full
    import json

    assert json.loads("1") == 1  # still the library


def test_a_missing_file_is_named(here):
    with pytest.raises(ConfigError, match=rf"mine.function=rewards.py:f: there is no file {here}/rewards.py"):
        load("rewards.py:f")


@pytest.mark.parametrize(
    "place", ["no_such_module:f", "math:no_such_function", "math:pi", "not a path", "present.py:absent", "present.py"]
)
def test_a_function_that_cannot_be_found_is_reported_with_its_setting(here, place):
    (here / "present.py").write_text("")
    with pytest.raises(
        ConfigError, match=rf"reward\.terms\.mine\.function={place}: (cannot be imported|is not a func)"
    ):
        load(place)


@pytest.mark.parametrize("place", ["failing_reward:f", "failing_reward.py:f"])
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("import sys; sys.exit(2)", "SystemExit: 2"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("open('absent.txt')", "FileNotFoundError"),
    ],
)
def test_an_error_shows_the_line_of_a_module_that_fails_during_import(here, monkeypatch, place, line, shown):
    (here / "failing_reward.py").write_text(f"\n{line}\n")
    monkeypatch.syspath_prepend(here)
    with pytest.raises(ConfigError) as failure:
        load(place)
    message = str(failure.value)
    assert message.startswith(f"reward.terms.mine.function={place}: its module fails during import:\n")
    assert f'File "{here}/failing_reward.py", line 2' in message
    assert line in message
    assert shown in message
    assert "importlib" not in message


def test_a_column_that_a_function_needs_and_the_data_lack_is_an_error_before_the_run(here):
    (here / "rewards.py").write_text("def exact(completions, solution, level, answer, **columns): return []\n")
    config = RewardConfig(terms={"exact": {"function": "rewards.py:exact"}, "accuracy": {}})
    problem = Problem("p", "1+1?", "2", extra=Columns({"level": 3}))
    with pytest.raises(ConfigError) as failure:
        check_functions(config, problem, "data.columns")
    assert "reward.terms.exact.function=rewards.py:exact is called as TRL calls it, and needs solution. " in str(
        failure.value
    )
    assert "it gets id, problem, answer, level. Set data.columns.extra=[level,solution] if" in str(failure.value)
    check_functions(config, Problem("p", "1+1?", "2", extra=Columns({"level": 3, "solution": "2"})), "data.columns")
