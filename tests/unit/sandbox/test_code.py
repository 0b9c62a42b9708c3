import json

import pytest

from grpo_cli.choices import Sandbox
from grpo_cli.errors import SetupError
from grpo_cli.sandbox import assert_tests, bwrap, syscall_filter
from grpo_cli.sandbox import box as sandbox
from grpo_cli.sandbox.box import check_sandbox, printable
from grpo_cli.sandbox.box_tests import error_like, update_in_place
from grpo_cli.sandbox.code import code_fault, grade_code
from grpo_cli.sandbox.code_tests import parse_tests
from grpo_cli.types import Verdict


@pytest.mark.parametrize(
    ("spec", "kind", "total"),
    [
        ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [1, 2]}, "CallTests", 2),
        ({"inputs": ["1"], "outputs": ["2"]}, "ProgramTests", 1),
        ({"tests": "assert f(1) == 2\nassert f(2) == 3"}, "AssertTests", 2),
        ({"test_list": ["assert f(1) == 2"], "test_setup_code": "x = 1"}, "AssertTests", 1),
        (["assert f(1) == 2", "assert f(2) == 3"], "AssertTests", 2),
        ({"test": "def check(candidate):\n    assert candidate(1) == 2", "entry_point": "f"}, "AssertTests", 1),
        ({"tests": "f(1)"}, "AssertTests", 1),
        ({"tests": "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)"}, "AssertTests", 1),
    ],
)
def test_the_three_forms_of_tests_are_parsed(spec, kind, total):
    tests = parse_tests(json.dumps(spec))
    assert (type(tests).__name__, tests.total) == (kind, total)
    assert code_fault(json.dumps(spec)) is None


def test_bare_assert_statements_are_tests():
    assert parse_tests("assert f(1) == 2").stubs == ("f",)


@pytest.mark.parametrize(
    ("gold", "fault"),
    [
        ("3", "must be a JSON object"),
        ("the answer is 4", "not Python"),
        ("", "no function that a solution could define"),
        ("assert 1 + 1 == 2", "no function that a solution could define"),
        ("def check(candidate): assert candidate(1)", "`entry_point`"),
        ({"solution": "x"}, "the keys here are solution"),
        ({"tests": ["assert f(1)", 2]}, "`tests` must be Python"),
        ({"tests": "assert f(1)", "setup": 5}, "`setup` must be Python"),
        ({"tests": "assert f(1)", "setup": "def"}, "not Python"),
        ({"tests": "assert f(1)", "entry_point": 5}, "`entry_point` must be a string"),
        ({"tests": "assert f(1)", "entry_point": "a function"}, "not Python"),
        ({"tests": "assert f('\0')"}, "not Python"),
        ("[" * 100_000, "not Python"),
        ("assert f(" + "-" * 100_000 + "1)", "not Python"),
        ({"inputs": [], "outputs": []}, "at least one test"),
        ({"inputs": ["1"], "outputs": ["1", "2"]}, "same length"),
        ({"outputs": ["1"]}, "two lists"),
        ({"inputs": [1], "outputs": ["1"]}, "must be strings"),
        ({"inputs": ["1"], "outputs": [1]}, "must be strings"),
        ({"inputs": [1], "outputs": [1], "fn_name": "f"}, "must be a list: the arguments"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": 7}, "`fn_name`"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": "f", "tolerance": -1}, "`tolerance`"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": "f", "starter_code": 7}, "`starter_code` must be Python"),
    ],
)
def test_unusable_tests_are_reported_with_the_reason(gold, fault):
    assert fault in code_fault(gold if isinstance(gold, str) else json.dumps(gold))


@pytest.mark.parametrize(
    ("spec", "stubs"),
    [
        ({"tests": "import math\nx = f(1)\nassert g(x) == math.pi"}, ("f", "g")),
        ({"tests": "assert sum(1, 2) == 3", "entry_point": "sum"}, ("sum",)),  # the name of a builtin
        ({"tests": "assert f(helper(1)) == 1", "setup": "def helper(x): return x"}, ("f",)),
        ({"tests": "assert f(1) == 1", "setup": "def f(x): ...", "entry_point": "f"}, ("f",)),
        ({"tests": "assert f([x for x in range(3)]) == sys.maxsize"}, ("f",)),  # sys is imported for the tests
        ({"tests": "assert copy(1) == 1"}, ("copy",)),  # a function, although a module has the same name
        ({"tests": "def check(candidate): assert candidate(1)", "entry_point": "Solution().run"}, ("Solution",)),
        ({"tests": "assert f(n.left) == 1", "setup": "n = Node(1)"}, ("Node", "f")),
        ({"tests": "def g(a):\n    def h(): return a + b\n    return h\nassert f(g)"}, ("b", "f")),
    ],
)
def test_stubs_are_the_names_that_only_the_solution_can_define(spec, stubs):
    assert parse_tests(json.dumps(spec)).stubs == stubs


@pytest.mark.parametrize(
    ("spec", "names", "starter"),
    [
        ({"fn_name": "f", "inputs": [[1]], "outputs": [1]}, ("f",), ""),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [1], "starter_code": "def f(x):"}, ("f",), "def f(x):"),
        ({"inputs": ["1"], "outputs": ["1"]}, (), ""),
        ({"tests": "assert f(1) == g(1)"}, ("f", "g"), ""),
        ({"tests": "assert f(1) == g(1)", "entry_point": "f"}, ("f",), ""),
        ({"tests": "assert f(1) == g(1)", "entry_point": "f", "setup": "def g(x): ..."}, ("f",), ""),
        ({"tests": "assert f(1)", "entry_point": "f", "prompt": "def f(x): ..."}, ("f",), "def f(x): ..."),
    ],
)
def test_tests_give_the_names_and_the_starter_code_of_a_solution(spec, names, starter):
    tests = parse_tests(json.dumps(spec))
    assert (tests.names, tests.starter) == (names, starter)


def test_each_assert_statement_is_a_test_except_constants_and_those_in_a_try_or_with():
    tests = parse_tests(
        json.dumps(
            {
                "tests": "assert True\nassert f(1)\n"
                "for i in range(3):\n    assert f(i) == i\n"
                "try:\n    assert f(None)\n    assert False\nexcept TypeError:\n    pass\n"
                "with suppress(ValueError):\n    assert f(-1)"
            }
        )
    )
    assert tests.asserts == ("assert f(1)", "assert f(i) == i")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["ValueError", "Exception", "object"], ValueError),
        (["MyError", "KeyError", "LookupError"], KeyError),
        (["MyError", "object"], RuntimeError),
        (["SystemExit", "BaseException"], RuntimeError),
        (["KeyboardInterrupt"], RuntimeError),
        (["StopIteration", "Exception"], RuntimeError),  # it would end a loop early, and `all` of no values is true
        (["Quiet", "StopIteration", "Exception"], RuntimeError),
        (["print", "object"], RuntimeError),
    ],
)
def test_an_exception_of_the_solution_reaches_the_tests_as_the_nearest_builtin(names, kind):
    assert type(error_like(names, "text")) is kind


def test_the_tests_see_changed_arguments_unless_their_type_changed():
    numbers, table, letters = [2, 1], {"a": 1}, {"x"}
    update_in_place(numbers, [1, 2])
    update_in_place(table, {"b": 2})
    update_in_place(letters, ["y"])
    assert (numbers, table, letters) == ([1, 2], {"b": 2}, {"x"})


def test_messages_of_a_program_are_cut_and_cannot_control_a_terminal():
    assert printable("a\x1b[31m\nb\ud800" + "c" * 300) == "a?[31m?b?" + "c" * 191  # 200 in all


def test_a_response_without_code_is_unparsable_and_starts_no_box(monkeypatch):
    monkeypatch.setattr(assert_tests, "Box", None)
    grade = grade_code('["assert f(1) == 1", "assert f(2) == 2"]', "I do not know.")
    assert grade == (Verdict.unparsable, 0, 2, "no block of Python code")


def test_without_bubblewrap_nothing_runs_and_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(bwrap.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="apt-get install bubblewrap"):
        check_sandbox(Sandbox.bwrap)
    with pytest.raises(SetupError, match="apt-get install bubblewrap"):
        grade_code('["assert f(1) == 1"]', "```python\ndef f(x): return x\n```")


def test_a_box_that_cannot_start_shows_the_message_of_bubblewrap(monkeypatch):
    denied = ["sh", "-c", "echo bwrap: Permission denied >&2; exit 1", "-"]
    monkeypatch.setattr(sandbox, "bwrap_command", lambda *_: denied)
    with pytest.raises(SetupError, match=r"does not start \(bwrap: Permission denied\)"):
        check_sandbox(Sandbox.bwrap)


def test_on_an_unsupported_machine_nothing_runs(monkeypatch):
    monkeypatch.setattr(syscall_filter.platform, "machine", lambda: "riscv64")
    syscall_filter.syscall_filter.cache_clear()
    with pytest.raises(SetupError, match="x86_64, aarch64, and this one is riscv64"):
        check_sandbox(Sandbox.bwrap)


def test_running_without_a_sandbox_gives_a_warning():
    with pytest.warns(UserWarning, match="with your permissions"):
        check_sandbox(Sandbox.none)
    grade = grade_code('["assert f(1) == 1"]', "```python\ndef f(x): return x\n```", sandbox=Sandbox.none)
    assert grade == (Verdict.correct, 1, 1, "")
