"""Rows in the layouts of published data sets, read without settings, and the filters of rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_cli.choices import Grader
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig, DataConfig
from grpo_cli.config.overrides import allow_new_entries
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.problems import load_problems
from grpo_cli.errors import DataError

QUESTION = "What is 48 + 24?"
SOLUTION = "First 48, then 24:\n\\[48 + 24 = \\boxed{72}.\\]"
ASKED = {"role": "user", "content": QUESTION}
MARKED = r"; 1 answers are taken out of texts that mark them, as in #### 72 or \boxed{72}"

# By layout: a row, and where its problem and its answer are found, in words.
LAYOUTS = {
    "GSM8K": (
        {"question": QUESTION, "answer": "48 + 24 = <<48+24=72>>72\n#### 72"},
        "'question' and 'answer'" + MARKED,
    ),
    "MATH": (
        {"problem": QUESTION, "level": "Level 1", "type": "Prealgebra", "solution": SOLUTION},
        "'problem' and 'solution'" + MARKED,
    ),
    "NuminaMath-CoT": (
        {"source": "cn_k12", "problem": QUESTION, "solution": SOLUTION, "messages": [ASKED]},
        "'problem' and 'solution'" + MARKED,
    ),
    "verl": (
        {
            "data_source": "math",
            "prompt": [{"role": "system", "content": "Be brief."}, ASKED],
            "reward_model": {"ground_truth": "72", "style": "rule"},
            "extra_info": {"index": 7, "split": "train"},
        },
        "the last user turn of 'prompt' and 'reward_model.ground_truth'",
    ),
    "DAPO-17k, processed": (
        {"prompt": QUESTION, "solution": "72", "source_prompt": [ASKED], "extra_info": {"index": "7"}},
        "'prompt' and 'solution'",
    ),
    "DAPO-17k, raw": (
        {
            "data_source": "math_dapo",
            "prompt": [ASKED],
            "reward_model": {"ground_truth": "72", "style": "rule-lighteval"},
        },
        "the last user turn of 'prompt' and 'reward_model.ground_truth'",
    ),
    "messages": (
        {"messages": [{"role": "system", "content": "Hi"}, ASKED, {"role": "assistant", "content": SOLUTION}]},
        "the last user turn of 'messages' and the last assistant turn of 'messages'" + MARKED,
    ),
    "messages with several questions": (
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": r"\boxed{1}"},
                ASKED,
                {"role": "assistant", "content": "<think>48 + 24</think> <answer>72</answer>"},
            ]
        },
        "the last user turn of 'messages' and the last assistant turn of 'messages'" + MARKED,
    ),
    "messages and a column": (
        {"messages": [ASKED], "ground_truth": "72"},
        "the last user turn of 'messages' and 'ground_truth'",
    ),
    "TRL's prompt and completion": (
        {"prompt": [ASKED], "completion": [{"role": "assistant", "content": "#### 72"}]},
        "the last user turn of 'prompt' and the last assistant turn of 'completion'" + MARKED,
    ),
    "TRL's prompt and solution": (
        {"prompt": [ASKED], "solution": r"$\boxed{72}$"},
        "the last user turn of 'prompt' and 'solution'" + MARKED,
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": SOLUTION}]},
        "the last user turn of 'conversations' and the last assistant turn of 'conversations'" + MARKED,
    ),
    "MetaMathQA": (
        {"query": QUESTION, "response": "48 + 24 = 72.\nThe answer is: 72", "type": "GSM_Rephrased"},
        "'query' and 'response'" + MARKED,
    ),
    "a spreadsheet": ({"ID": "1", "Question": QUESTION, "Answer": 72}, "'Question' and 'Answer'"),
}


@pytest.fixture
def data(tmp_path):
    """A function that writes rows to a file and returns its config."""

    def write(*rows, name="train.jsonl", **settings):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return DataConfig(name="mine", path=str(path), **settings)

    return write


def load(config):
    return load_problems(config, config.name, "data")


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_is_read_without_settings_and_said_in_one_line(data, caplog, layout, name):
    row, sources = LAYOUTS[layout]
    config = data(row, name=name)
    (problem,) = load(config)
    assert (problem.text, problem.answer, problem.grader) == (QUESTION, "72", "math")
    assert caplog.messages == [f"{config.path}: problems and answers are read from {sources}."]


def test_a_benchmark_is_recognised_too(data):
    config = BenchmarkConfig(path=data(LAYOUTS["GSM8K"][0]).path)
    assert [problem.answer for problem in load_benchmark("mine", config)] == ["72"]


def test_rows_with_the_usual_columns_are_read_silently(data, caplog):
    assert load(data({"problem": QUESTION, "answer": "72"}))[0].answer == "72"
    assert not caplog.messages


def test_a_marked_answer_is_taken_out_of_a_configured_column_too(data, caplog):
    config = data({"q": QUESTION, "a": SOLUTION}, columns=ColumnsConfig(problem="q", answer="a"))
    assert load(config)[0].answer == "72"
    assert caplog.messages == [
        f"{config.path}: 1 answers are taken out of texts that mark them, as in #### 72 or \\boxed{{72}}."
    ]


def test_one_configured_column_is_completed_by_the_layout(data):
    assert load(data({"q": QUESTION, "solution": SOLUTION}, columns=ColumnsConfig(problem="q")))[0].answer == "72"


def test_a_configured_column_that_is_missing_is_never_replaced(data):
    with pytest.raises(DataError, match=r"no column 'anwser'; .* Set data\.columns\.answer=answer\."):
        load(data({"problem": QUESTION, "answer": "72"}, columns=ColumnsConfig(answer="anwser")))


@pytest.mark.parametrize("text", ["Long. " * 40, "so\nit is 72", r"it is \boxed{}", "####"])
def test_a_solution_without_a_marked_answer_is_named_with_the_settings(data, text):
    config = data({"problem": QUESTION, "solution": text}, {"problem": QUESTION, "solution": SOLUTION})
    with pytest.raises(DataError) as error:
        load(config)
    assert f"{config.path}, line 1: no final answer is marked, as in #### 72 or \\boxed{{72}}" in str(error.value)
    assert "data.columns.answer and data.columns.answer_pattern say where it is" in str(error.value)


def test_a_pattern_comes_before_marks(data):
    rows = {"problem": QUESTION, "solution": "Result = 72 (of 100)\n#### 1"}
    assert load(data(rows, columns=ColumnsConfig(answer_pattern=r"Result = (\d+)")))[0].answer == "72"


@pytest.mark.parametrize(
    ("grader", "answer"), [(Grader.expression, "1 2 #### 3"), (Grader.code, r'{"tests": "\\boxed{1}"}')]
)
def test_tests_and_expressions_are_never_shortened(data, grader, answer):
    assert load(data({"problem": "p", "answer": answer}, grader=grader))[0].answer == answer


def test_a_conversation_without_a_question_names_its_row(data):
    rows = [{"messages": [{"role": "system", "content": "Hi"}], "answer": "1"}, {"messages": [ASKED], "answer": "72"}]
    with pytest.raises(DataError, match="line 1: 'messages' has no text of the user"):
        load(data(*rows))


def test_columns_of_no_known_layout_are_listed(data):
    with pytest.raises(DataError, match=r"no column 'problem'; its columns are 'prompt\.0\.content'\. Set"):
        load(data({"prompt": [{"content": QUESTION}]}, columns=ColumnsConfig(answer="gold")))


# ------------------------------------------------------------ filters


def numina(problem, **changes):
    return {"problem": problem, "answer": "72", "problem_is_valid": "Yes", "level": 3, "synthetic": False} | changes


ROWS = [
    numina("a"),
    numina("b", problem_is_valid="Incomplete"),
    numina("c", answer="proof"),
    numina("d", answer=None),
    numina("e", level=4, synthetic=True),
]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"filter": {"problem_is_valid": ["Yes"]}, "exclude": {"answer": ["proof", ""]}}, "ae"),
        ({"filter": {"level": [4, "5"]}}, "e"),
        ({"filter": {"level": 4, "synthetic": True}}, "e"),
        ({"filter": {"synthetic": ["false"], "answer": ["72"]}}, "ab"),
        ({"exclude": {"answer": ["proof", ""], "synthetic": ["true"]}}, "ab"),
    ],
)
def test_rows_are_kept_by_the_values_of_columns(data, caplog, settings, kept):
    config = data(*ROWS, **settings)
    assert "".join(problem.text for problem in load(config)) == kept
    used = " and ".join(f"data.{name}" for name in ("filter", "exclude") if name in settings)
    assert caplog.messages == [f"{config.path}: {5 - len(kept)} of 5 rows are left out by {used}."]


def test_a_filter_that_leaves_no_row_shows_the_values_that_there_are(data):
    config = data(*ROWS, filter={"problem_is_valid": [True]})
    with pytest.raises(DataError) as error:
        load(config)
    assert "data.filter.problem_is_valid=[true] leaves no row." in str(error.value)
    assert "The values of 'problem_is_valid' are 'Incomplete', 'Yes'." in str(error.value)


def test_a_filter_is_given_on_the_command_line(compose_train):
    given = ["data=numina_math_1_5", "data.filter={level:[4,5],synthetic:[false]}", "~data.exclude.answer"]
    config = compose_train(*allow_new_entries("train", given))
    assert config.data.filter["level"] == [4, 5]
    assert config.data.filter["problem_is_valid"] == ["Yes"]
    assert config.data.exclude == {}


# ------------------------------------------------------------ real data


def test_the_solutions_of_math_give_its_answers(shared, data):
    lines = (shared / "data/train/math_7500.jsonl").read_text().strip().split("\n")
    rows = [json.loads(line) for line in lines]
    plain = [{"problem": row["problem"], "solution": row["solution"]} for row in rows]
    problems = load(data(*plain, max_bad_rows=2))  # two end in an empty box
    assert len(problems) == 7498
    answers = {row["problem"].strip(): row["answer"] for row in rows}
    # Of two adjacent boxes, both are the answer; the published column has only the last one.
    others = [problem for problem in problems if problem.answer != answers[problem.text]]
    assert all(problem.answer.endswith(answers[problem.text]) for problem in others)
    assert len(others) < 15


def test_the_published_rows_of_gsm8k_give_its_answers(shared, data):
    rows = [json.loads(line) for line in (shared / "data/train/gsm8k_train.jsonl").read_text().strip().split("\n")]
    problems = load(data(*({"question": row["problem"], "answer": row["solution"]} for row in rows)))
    assert [problem.answer.replace(",", "") for problem in problems] == [row["answer"] for row in rows]
