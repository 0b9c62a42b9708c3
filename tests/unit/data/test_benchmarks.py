"""Benchmarks of each layout, those of conf/benchmark in their published format, and real files."""

import base64
import csv
import io
import json
import os
import pickle
import zlib

import datasets
import pytest
from huggingface_hub import constants
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from grpo_cli.choices import Grader, Layout
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.make_zero import heldout_problems
from grpo_cli.errors import ConfigError, DataError, SetupError
from grpo_cli.grading.symbolic import judge_fully
from grpo_cli.sandbox import code_fault, grade_code
from grpo_cli.types import Problem, Verdict


@pytest.fixture
def write(tmp_path):
    """A function that writes rows to a new JSONL file and returns its path."""

    def write_rows(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write_rows


def configured(name, **changes):
    """The benchmark from its file in conf/benchmark, with `changes`."""
    file = OmegaConf.load(conf_dir() / f"benchmark/{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BenchmarkConfig), file[name], changes))


def pickled(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def stdin_case(given, expected):
    return {"input": given, "output": expected, "testtype": "stdin"}


GPQA = {
    "Question": "Which is a noble gas?",
    "Correct Answer": "argon\n",
    "Incorrect Answer 1": "iron",
    "Incorrect Answer 2": "oxygen",
    "Incorrect Answer 3": "sodium",
    "Record ID": "rec1",
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}
MBPP = {
    "task_id": 126,
    "text": "Write a function to double a number.",
    "code": "def half(x):\n  return x / 2\ndef sum(x):\n  return x + x",
    "test_list": ["assert sum(2) == 4", "assert sum(ONE) == 2"],
    "test_setup_code": "ONE = 1",
}
FUNCTIONAL = {
    "question_id": "1",
    "question_content": "Add two numbers.",
    "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
    "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
    "private_test_cases": pickled(json.dumps([{"input": "4\n5", "output": "9", "testtype": "functional"}])),
    "metadata": '{"func_name": "add"}',
}
STDIN = {
    "question_id": "abc_a",
    "question_content": "Print the sum of two numbers.",
    "starter_code": "",
    "public_test_cases": json.dumps([stdin_case("1 2\n", "3\n")]),
    "private_test_cases": json.dumps([stdin_case("4 5\n", "9\n")]),
    "metadata": "{}",
}


# ------------------------------------------------------------ local files


@pytest.mark.parametrize("layout", Layout)
def test_a_local_file_may_have_the_default_columns_whatever_the_layout(write, layout):
    config = BenchmarkConfig(path=write({"id": "a", "problem": "1+1?", "answer": "2"}), layout=layout)
    assert load_benchmark("mine", config) == [Problem("a", "1+1?", "2")]


@pytest.mark.parametrize(
    ("name", "row"),
    [("gpqa_diamond", GPQA), ("humaneval", HUMANEVAL), ("mbpp", MBPP), ("livecodebench", STDIN)],
)
def test_a_local_file_may_be_a_copy_of_the_file_on_the_hub(write, name, row):
    (problem,) = load_benchmark(name, configured(name, path=write(row)))
    assert problem.id in map(str, row.values())


def test_a_layout_has_its_own_columns_whatever_the_columns_setting(write):
    columns = ColumnsConfig(id="key", problem="q", answer="a")
    config = BenchmarkConfig(path=write(MBPP), layout=Layout.mbpp, columns=columns)
    assert [problem.id for problem in load_benchmark("mine", config)] == ["126"]


def test_rows_without_an_id_get_the_benchmark_name_and_a_number(write):
    row = {name: value for name, value in GPQA.items() if name != "Record ID"}
    path = write(row, row)
    problems = load_benchmark("mine", BenchmarkConfig(path=path, layout=Layout.multiple_choice))
    assert [problem.id for problem in problems] == ["mine-1", "mine-2"]


@pytest.mark.parametrize("layout", [Layout.answer, Layout.mbpp])
def test_an_empty_file_is_rejected(write, layout):
    with pytest.raises(DataError, match="is empty"):
        load_benchmark("mine", BenchmarkConfig(path=write(), layout=layout))


@pytest.mark.parametrize(
    ("layout", "row", "column"),
    [
        (Layout.multiple_choice, GPQA, "Incorrect Answer 2"),
        (Layout.humaneval, HUMANEVAL, "entry_point"),
        (Layout.mbpp, MBPP, "test_list"),
        (Layout.livecodebench, STDIN, "private_test_cases"),
    ],
)
def test_the_error_for_a_row_without_a_column_of_its_layout_names_the_row_and_the_fix(write, layout, row, column):
    short = {name: value for name, value in row.items() if name != column}
    with pytest.raises(DataError) as error:
        load_benchmark("mine", BenchmarkConfig(path=write(row, short), layout=layout))
    assert f"rows.jsonl, line 2: no text in '{column}'; the columns are " in str(error.value)
    assert f"benchmark.mine.layout={layout}" in str(error.value)
    assert "a file with the columns 'problem' and 'answer' as benchmark.mine.path=<file>" in str(error.value)


# ------------------------------------------------------------ layouts


def test_choices_have_letters_and_the_answer_is_the_letter_of_the_right_choice(write):
    questions = [GPQA | {"Question": f"{n}?", "Record ID": f"{n}"} for n in range(40)]
    config = BenchmarkConfig(path=write(*questions), layout=Layout.multiple_choice)
    problems = load_benchmark("mine", config)
    for problem in problems:
        assert f"\n({problem.answer}) argon\n" in problem.text
        assert all(f") {choice}\n" in problem.text for choice in ("iron", "oxygen", "sodium"))
    assert {problem.answer for problem in problems} == set("ABCD")


def test_the_order_of_the_choices_does_not_depend_on_the_position_of_the_question(write):
    config = BenchmarkConfig(path=write(GPQA), layout=Layout.multiple_choice)
    (alone,) = load_benchmark("mine", config)
    write({**GPQA, "Question": "Another?", "Record ID": "rec0"}, GPQA)
    assert load_benchmark("mine", config)[1] == alone


@pytest.mark.parametrize(
    ("stated", "verdict"),
    [
        ("B", Verdict.correct),
        ("(B)", Verdict.correct),
        (r"\text{B}", Verdict.correct),
        ("B.", Verdict.correct),
        ("A", Verdict.wrong),
        ("(A)", Verdict.wrong),
        ("AB", Verdict.wrong),
    ],
)
def test_the_math_grader_judges_letters(stated, verdict):
    assert judge_fully("B", stated).verdict == verdict


def test_humaneval_asks_to_complete_the_prompt_and_tests_with_it(write):
    (problem,) = load_benchmark("humaneval", configured("humaneval", path=write(HUMANEVAL)))
    assert (problem.id, problem.grader) == ("HumanEval/0", "code")
    assert HUMANEVAL["prompt"] in problem.text
    assert grade_code(problem.answer, "```python\ndef double(x): return 2 * x\n```").verdict == Verdict.correct
    assert grade_code(problem.answer, "```python\ndef double(x): return x\n```").verdict == Verdict.wrong


def test_mbpp_prompts_contain_the_asserts_which_run_after_the_setup(write):
    (problem,) = load_benchmark("mbpp", configured("mbpp", path=write(MBPP)))
    assert (problem.id, problem.grader) == ("126", "code")
    assert "double a number.\n\nYour code should pass these tests:\n\n```python\nassert sum(2) == 4\n" in problem.text
    # `sum` is the function of the solution, not the builtin
    assert grade_code(problem.answer, "```python\ndef sum(x): return 2 * x\n```")[:3] == (Verdict.correct, 2, 2)


def test_mbpp_sanitized_has_the_columns_prompt_and_test_imports(write):
    row = {
        "task_id": 1,
        "prompt": "Write half.",
        "test_list": ["assert half(3) == third(4.5)"],
        "test_imports": ["from fractions import Fraction", "third = Fraction(1, 3).__mul__"],
    }
    (problem,) = load_benchmark("mbpp", configured("mbpp", path=write(row)))
    assert problem.text.startswith("Write half.")
    assert grade_code(problem.answer, "```python\ndef half(x): return x / 2\n```").verdict == Verdict.correct


def test_livecodebench_calls_a_function_with_one_argument_per_line(write):
    (problem,) = load_benchmark("livecodebench", configured("livecodebench", path=write(FUNCTIONAL)))
    assert FUNCTIONAL["starter_code"].strip() in problem.text
    calls = {"fn_name": "add", "inputs": [[1, 2], [4, 5]], "outputs": [3, 9]}
    assert json.loads(problem.answer) == calls | {"starter_code": FUNCTIONAL["starter_code"]}
    for solution in ("class Solution:\n    def add(self, a, b): return a + b", "return a + b"):
        assert grade_code(problem.answer, f"```python\n{solution}\n```").verdict == Verdict.correct


def test_livecodebench_runs_a_program_on_public_and_private_cases(write):
    (problem,) = load_benchmark("livecodebench", configured("livecodebench", path=write(STDIN)))
    assert "reads standard input and writes standard output" in problem.text
    assert json.loads(problem.answer) == {"inputs": ["1 2\n", "4 5\n"], "outputs": ["3\n", "9\n"]}
    program = "```python\nprint(sum(map(int, input().split())))\n```"
    assert grade_code(problem.answer, program)[:3] == (Verdict.correct, 2, 2)


class Malice:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (pickled(Malice()), "the pickle contains posix.mkdir, but only text is accepted"),
        (pickled(7), "TypeError"),
        (pickled("no JSON"), "JSONDecodeError"),
        ("no base64", "Error"),
        (base64.b64encode(b"not compressed").decode(), "incorrect header check"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "Error"),
        ("[{}]", "KeyError: 'input'"),
    ],
)
def test_private_cases_that_are_not_plain_text_are_rejected_not_run(write, tmp_path, monkeypatch, private, message):
    monkeypatch.chdir(tmp_path)
    row = STDIN | {"private_test_cases": private}
    with pytest.raises(DataError, match=rf"(?s)line 1: the test cases cannot be read \(.*{message}"):
        load_benchmark("livecodebench", configured("livecodebench", path=write(row)))
    assert not (tmp_path / "made-by-a-pickle").exists()


# ------------------------------------------------------------ conf/benchmark

FILES = sorted(path.stem for path in (conf_dir() / "benchmark").glob("*.yaml"))
SUITES = {"oat_suite"}

# For each hub data set, in its published format: the file, a row of it, and the problem's id and answer. If the
# answer consists of tests: their keys.
PUBLISHED = {
    "aime24": ("data/train.jsonl", {"id": 60, "problem": "1+1?", "answer": "002", "year": "2024"}, "60", "002"),
    "aime25": ("test.jsonl", {"problem": "1+1?", "answer": "2", "id": "0"}, "0", "2"),
    "amc": ("data/train.jsonl", {"id": 0, "problem": "1+1?", "answer": 2.0, "url": "u"}, "0", "2"),
    "math500": ("test.jsonl", {"problem": "1+1?", "answer": "2", "unique_id": "a/1.json"}, "a/1.json", "2"),
    "minerva": ("test.jsonl", {"question": "1+1?", "answer": "2"}, "minerva-1", "2"),
    "olympiad_bench": (
        "OE_TO_maths_en_COMP/train.jsonl",
        {"id": 1606, "question": "1+1?", "final_answer": ["$2$"], "context": None, "error": None},
        "1606",
        "$2$",
    ),
    "gsm8k": ("main/test.jsonl", {"question": "1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2"}, "gsm8k-1", "2"),
    "gsm8k_platinum": (
        "main/test.jsonl",
        {"question": "1+1?", "answer": "1+1 = 2\n#### 2", "cleaning_status": "consensus"},
        "gsm8k_platinum-1",
        "2",
    ),
    "aime26": ("data/train.jsonl", {"problem_idx": 1, "problem": "1+1?", "answer": 2}, "1", "2"),
    "hmmt": (
        "data/train.jsonl",
        {"problem_idx": 1, "problem": "1+1?", "answer": "2", "problem_type": ["Algebra"]},
        "1",
        "2",
    ),
    "gpqa_diamond": ("gpqa_diamond.csv", GPQA, "rec1", None),
    "humaneval": ("openai_humaneval/test.jsonl", HUMANEVAL, "HumanEval/0", {"tests", "entry_point", "setup"}),
    "mbpp": ("full/test.jsonl", MBPP, "126", {"tests", "entry_point", "setup"}),
    "livecodebench": ("test6.jsonl", STDIN, "abc_a", {"inputs", "outputs"}),
}


def test_every_file_is_a_benchmark_with_the_same_name_or_a_suite():
    assert {"make_zero", "file", *PUBLISHED} | SUITES == set(FILES)
    for name in set(FILES) - SUITES:
        assert list(OmegaConf.load(conf_dir() / f"benchmark/{name}.yaml")) == [name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_hub_benchmark_of_conf_is_read_in_its_published_format(hub, name):
    file, row, problem_id, answer = PUBLISHED[name]
    config = configured(name, revision=None)
    if file.endswith(".csv"):
        sheet = io.StringIO()
        writer = csv.DictWriter(sheet, row)
        writer.writeheader()
        writer.writerow(row)
        content = sheet.getvalue()
    else:
        content = json.dumps(row)
    split = {"split": config.split, "path": file}
    card = f"---\n{json.dumps({'configs': [{'config_name': config.subset, 'data_files': [split]}]})}\n---"
    hub.files[config.source] = {"README.md": card.encode() if config.subset else b"", file: content.encode()}
    (problem,) = load_benchmark(name, config)
    assert problem.id == problem_id
    if isinstance(answer, set):
        assert problem.grader == "code"
        assert set(json.loads(problem.answer)) == answer
        assert code_fault(problem.answer) is None
    else:
        assert problem.grader == "math"
        assert problem.answer in ("ABCD" if answer is None else [answer])


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_hub_benchmark_is_pinned_to_a_commit(name):
    revision = configured(name).revision
    assert len(revision) == 40
    assert set(revision) <= set("0123456789abcdef")


def test_without_a_network_the_error_gives_both_fixes(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match=r"(?s)benchmark.math500.path=<file>\. Or .*set HF_HUB_OFFLINE=1"):
        load_benchmark("math500", configured("math500"))


def test_the_built_in_benchmark_is_the_held_out_problems():
    assert load_benchmark("make_zero", configured("make_zero")) == heldout_problems()
    with pytest.raises(ConfigError, match=r"benchmark.x.source=builtin:make_zreo: the built-in tasks"):
        load_benchmark("x", BenchmarkConfig(source="builtin:make_zreo"))


def test_a_benchmark_without_path_and_source_is_rejected():
    with pytest.raises(ConfigError, match=r"set benchmark.x.path=<file>, .* as in benchmark=gsm8k"):
        load_benchmark("x", BenchmarkConfig())


def test_the_suite_of_the_paper_has_its_five_benchmarks():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        suite = compose("benchmark/oat_suite").benchmark
    GlobalHydra.instance().clear()
    assert list(suite) == ["aime24", "amc", "math500", "minerva", "olympiad_bench"]
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BenchmarkConfig), suite.amc)) == configured("amc")


# ------------------------------------------------------------ real data


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("aime24", "aime24", 30),
        ("aime25", "aime25", 30),
        ("amc", "amc", 83),
        ("math500", "math500", 500),
        ("minerva", "minerva", 272),
        ("olympiad_bench", "olympiad_bench", 675),
        ("gsm8k", "gsm8k_test", 1319),
        ("file", "math_test_5k", 5000),
    ],
)
def test_real_files_load_completely(shared, name, file, size):
    problems = load_benchmark(name, configured(name, path=str(shared / f"data/eval/{file}.jsonl")))
    assert len({problem.id for problem in problems}) == len(problems) == size


@pytest.mark.parametrize(
    # mbpp/126 asks for a function with the name of a builtin, mbpp/367 has setup code
    ("name", "size", "tried"),
    [("humaneval", 164, ("HumanEval/0", "HumanEval/32")), ("mbpp", 974, ("mbpp/1", "mbpp/126", "mbpp/367"))],
)
def test_real_code_problems_load_completely_and_their_reference_solutions_pass(shared, name, size, tried):
    path = shared / f"data/code_{name}.jsonl"
    problems = load_benchmark(name, configured(name, path=str(path)))
    assert len(problems) == size
    assert {problem.grader for problem in problems} == {Grader.code}
    assert [problem.id for problem in problems if code_fault(problem.answer)] == []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for problem, row in zip(problems, rows, strict=True):
        if problem.id in tried:
            start = row["prompt"] if name == "humaneval" else ""
            solution = f"```python\n{start}{row['canonical_solution']}\n```"
            assert grade_code(problem.answer, solution).verdict == Verdict.correct, problem.id
