"""Rows to problems, the held-out split, and the errors for invalid data."""

import json
import logging
from dataclasses import replace
from decimal import Decimal
from itertools import count

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_cli.bounds import settings_faults
from grpo_cli.choices import Grader
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig, DataConfig
from grpo_cli.data.problems import load_problem_set, load_problems
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.types import Problem


@pytest.fixture
def data(tmp_path):
    """A function that writes rows to a new JSONL file and returns its config."""
    numbers = count()

    def write(*rows, **settings):
        path = tmp_path / f"{next(numbers)}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return DataConfig(name="mine", path=str(path), **settings)

    return write


def row(**changes):
    return {"id": "a", "problem": "1+1?", "answer": "2"} | changes


def load(config):
    return load_problems(config, config.name, "data")


def sums(size):
    return [row(id=f"sum-{n}", problem=f"{n}+{n}?", answer=2 * n) for n in range(size)]


# ------------------------------------------------------------ rows to problems


def test_a_row_becomes_a_problem_with_the_grader_of_the_data_set(data):
    assert load(data(row(level=3))) == [Problem("a", "1+1?", "2", "math")]
    assert load(data(row(), grader=Grader.expression))[0].grader == "expression"


def test_a_row_may_name_its_own_grader(data):
    rows = [row(id=1, grader="expression"), row(id=2, grader=None), row(id=3, grader="model", answer="")]
    assert [(problem.grader, problem.answer) for problem in load(data(*rows))] == [
        ("expression", "2"),
        ("math", "2"),
        ("model", ""),
    ]
    columns = ColumnsConfig(grader=None)
    assert [problem.grader for problem in load(data(*rows[:2], columns=columns))] == ["math", "math"]
    with pytest.raises(DataError, match=r"line 3: 'answer' is empty"):
        load(data(*rows, columns=columns))


def test_a_general_prompt_may_keep_its_answer(data):
    [problem] = load(data(row(grader="model", answer="a sonnet"), columns=ColumnsConfig(answer_pattern="a (.+)")))
    assert problem.answer == "sonnet"


def test_an_unknown_grader_error_names_the_row_and_the_setting_that_ignores_it(data):
    with pytest.raises(DataError) as error:
        load(data(row(), row(id="b", grader="human")))
    assert "line 2: the grader is 'human', and must be one of math, expression, code, model" in str(error.value)
    assert "data.columns.grader=null" in str(error.value)


def test_a_benchmark_has_no_general_prompts(data):
    path = data(row(grader="model"), row(id="b")).path
    with pytest.raises(DataError, match="a benchmark needs answers that a rule can check"):
        load_problems(BenchmarkConfig(path=path), "x", "benchmark.x")


def test_columns_are_read_by_their_configured_names(data):
    columns = ColumnsConfig(id="key", problem="q", answer="extra_info.gold")
    rows = {"key": 7, "q": "1+1?", "extra_info": {"gold": "2"}}
    assert load(data(rows, columns=columns)) == [Problem("7", "1+1?", "2")]


def test_other_columns_reach_reward_functions_as_they_are_in_the_file(data):
    rows = [row(hint="add", tests=[{"in": [1], "out": {}}], meta={"level": 3}), row(id="b", hint=None, tests=[])]
    first, second = load(data(*rows, columns=ColumnsConfig(extra=["hint", "tests", "meta.level"])))
    assert first.extra == {"hint": "add", "tests": [{"in": [1], "out": {}}], "meta.level": 3}
    assert second.extra == {"hint": None, "tests": [], "meta.level": None}
    with pytest.raises(TypeError):
        first.extra["hint"] = "subtract"


def test_all_columns_can_be_asked_for(data):
    first, second = load(data(row(meta={"level": 3}), row(id="b"), columns=ColumnsConfig(extra="all")))
    assert first.extra == {"id": "a", "problem": "1+1?", "answer": "2", "meta": {"level": 3}}
    assert second.extra == {"id": "b", "problem": "1+1?", "answer": "2", "meta": None}


def test_without_the_setting_a_problem_has_no_other_columns(data):
    assert load(data(row(hint="add")))[0].extra == {}


def test_a_missing_column_for_reward_functions_is_named(data):
    config = data(row(hint="add"), columns=ColumnsConfig(extra=["hnt"]))
    with pytest.raises(DataError) as error:
        load(config)
    assert "has no column 'hnt'; its columns are 'id', 'problem', 'answer', 'hint'." in str(error.value)
    assert "Did you mean hint? Correct data.columns.extra, or set data.columns.extra=all." in str(error.value)


def test_other_columns_do_not_change_what_identifies_a_problem(data):
    # A checkpoint of a run without them can be resumed with them.
    plain, with_hint = (load(data(row(hint="add"), columns=ColumnsConfig(extra=names)))[0] for names in ([], ["hint"]))
    assert repr(plain) == repr(with_hint) == repr(Problem("a", "1+1?", "2", "math"))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"columns": ColumnsConfig(extra="hint")}, "data.columns.extra=hint must be a list of columns"),
        ({"columns": ColumnsConfig(extra=[3])}, "data.columns.extra=[3] must be a list of columns"),
        (
            {"path": None, "source": "openai/gsm8k", "columns": ColumnsConfig(extra=["hint"])},
            "Set data.source_columns.extra for columns of data.source=openai/gsm8k",
        ),
    ],
)
def test_wrong_names_of_columns_are_a_fault_of_the_settings(data, settings, fault):
    config = replace(data(row()), **settings)
    assert [fault in each for each in settings_faults(config, "data.")] == [True]


@pytest.mark.parametrize("columns", [ColumnsConfig(id="key"), ColumnsConfig(id=None)])
def test_rows_without_an_id_are_numbered(data, columns):
    problems = load(data(row(), row(), columns=columns))
    assert [problem.id for problem in problems] == ["mine-1", "mine-2"]


def test_an_id_that_two_rows_share_is_rejected(data):
    with pytest.raises(DataError, match=r"0.jsonl: 2 rows have the same id 'a'.* line 1 and line 3\..*columns.id=null"):
        load(data(row(), row(id="b"), row()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" 2 \n", "2"),
        ("007", "007"),
        (72, "72"),
        (10**25, "1" + "0" * 25),
        (0.5, "0.5"),
        (142.0, "142"),
        (1e-8, "0.00000001"),
    ],
)
def test_an_answer_becomes_text_in_usual_notation(data, value, text):
    assert load(data(row(answer=value)))[0].answer == text


def test_decimals_of_a_parquet_file_become_text_in_usual_notation(tmp_path):
    table = pa.table({"problem": ["a?", "b?"], "answer": [Decimal("1.50"), Decimal("142.00")]})
    pq.write_table(table, tmp_path / "a.parquet")
    problems = load(DataConfig(name="mine", path=str(tmp_path / "a.parquet")))
    assert [problem.answer for problem in problems] == ["1.50", "142"]


def test_a_local_file_takes_precedence_over_the_source(data):
    for source in ("me/never-loaded", "builtin:make_zero"):
        assert load(data(row(), source=source)) == [Problem("a", "1+1?", "2")]


# ------------------------------------------------------------ invalid data


@pytest.mark.parametrize(
    ("rows", "fix"),
    [
        ({"extra_info": {"question": "?"}, "answer": "2"}, "data.columns.problem=extra_info.question"),
        ({"text": "?", "answer": "2"}, "data.columns.problem=text"),
        ({"prompt": [{"text": "?"}], "answer": "2"}, "data.columns.problem=prompt.0.text"),
        ({"problem": "?", "gold": "2"}, "data.columns.answer=gold"),
        ({"problem": "?", "extra_info": {"answer": "2"}}, "data.columns.answer=extra_info.answer"),
        ({"problem": "?", "answers": ["2", "two"]}, "data.columns.answer=answers.0"),
        ({"problem": "?", "x": "2"}, "data.columns.answer=<column>"),
    ],
)
def test_a_missing_column_error_lists_the_present_columns_and_the_override(data, rows, fix):
    with pytest.raises(DataError) as error:
        load(data(rows))
    assert str(error.value).endswith(f" Set {fix}.")
    assert all(name in str(error.value) for name in rows)


def test_a_wrong_column_name_error_suggests_the_default_column_if_present(data):
    with pytest.raises(DataError, match=r"no column 'qn'; .* Set data.columns.problem=problem\."):
        load(data(row(), columns=ColumnsConfig(problem="qn")))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"problem": None}, "'problem' is empty"),
        ({"problem": " \n"}, "'problem' is empty"),
        ({"answer": ""}, "'answer' is empty"),
        ({"answer": float("nan")}, "'answer' must be a finite number, not nan"),
        ({"answer": True}, "'answer' must be text or a number, not bool"),
        ({"problem": "\ud83d"}, "'problem' contains half of a surrogate pair"),
    ],
)
def test_an_invalid_row_is_named_by_file_and_line(data, fault, message):
    config = data(*sums(10), row(**fault))
    with pytest.raises(DataError) as error:
        load(config)
    assert f"1 of 11 rows cannot be used:\n{config.path}, line 11: {message}" in str(error.value)
    assert "data.max_bad_rows=1" in str(error.value)


def test_invalid_rows_up_to_the_limit_are_left_out_and_logged(data, caplog):
    rows = [*sums(3), row(answer=""), {"id": "b", "problem": "no answer at all"}]
    with caplog.at_level(logging.WARNING):
        assert len(load(data(*rows, max_bad_rows=2))) == 3
    assert "2 of 5 rows cannot be used and are left out (data.max_bad_rows=2 allows it)" in caplog.text
    assert "line 5: 'answer' is empty" in caplog.text
    with pytest.raises(DataError, match=r"2 of 5 rows cannot be used"):
        load(data(*rows, max_bad_rows=1))


def test_a_data_set_without_a_valid_row_is_rejected_whatever_the_limit(data):
    with pytest.raises(DataError, match=r"None of 2 rows can be used"):
        load(data(row(answer=""), row(problem=""), max_bad_rows=9))


def test_the_message_stays_short_with_many_invalid_rows(data):
    with pytest.raises(DataError) as error:
        load(data(*sums(1), *(row(answer="") for _ in range(1000))))
    assert len(str(error.value).splitlines()) == 23


def test_an_empty_data_set_is_rejected(data):
    with pytest.raises(DataError, match=r"0.jsonl is empty"):
        load(data())


def test_neither_path_nor_source_is_rejected():
    with pytest.raises(ConfigError, match=r"set data.path=<file>"):
        load(DataConfig(name="mine"))


# ------------------------------------------------------------ answer_pattern


def test_the_answer_pattern_extracts_the_answer_from_a_solution(data):
    columns = ColumnsConfig(answer_pattern="####([^(]+)")
    solution = "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 1,072 (clips)"
    assert load(data(row(answer=solution), columns=columns))[0].answer == "1,072"


@pytest.mark.parametrize("answer", ["seventy-two", "####   "])
def test_an_answer_that_the_pattern_does_not_match_names_the_row(data, answer):
    columns = ColumnsConfig(answer_pattern="####(.*)")
    with pytest.raises(DataError, match=r"0.jsonl, line 2: answer_pattern '####\(\.\*\)' does not match"):
        load(data(row(answer="#### 2"), row(answer=answer), columns=columns))


@pytest.mark.parametrize(
    ("pattern", "message"), [("#### .+", "has no group"), ("(", "is not a valid regular expression")]
)
def test_an_invalid_pattern_is_rejected(data, pattern, message):
    with pytest.raises(ConfigError, match=f"data.columns.answer_pattern=.*{message}"):
        load(data(row(), columns=ColumnsConfig(answer_pattern=pattern)))


# ------------------------------------------------------------ the held-out split


def test_every_problem_is_either_held_out_or_trained_on(data):
    problems = load_problem_set(data(*sums(100), num_heldout=30), seed=0)
    assert (len(problems.train), len(problems.heldout)) == (70, 30)
    assert {problem.text for problem in problems.train + problems.heldout} == {f"{n}+{n}?" for n in range(100)}


def test_the_seed_determines_which_problems_are_held_out(data):
    config = data(*sums(100), num_heldout=30)
    first, again, other = (load_problem_set(config, seed) for seed in (1, 1, 2))
    assert first == again
    assert set(first.heldout) != set(other.heldout)


def test_a_problem_that_occurs_twice_is_never_on_both_sides(data):
    twice = [row(id=f"{n}-{copy}", problem=f"{n}?", answer=n) for n in range(50) for copy in "ab"]
    problems = load_problem_set(data(*twice, num_heldout=20), seed=0)
    assert len(problems.heldout) == 20
    assert not {problem.text for problem in problems.train} & {problem.text for problem in problems.heldout}


@pytest.mark.parametrize(("size", "heldout"), [(2, 1), (300, 30), (2559, 255), (2560, 256), (3000, 256)])
def test_without_a_number_at_most_a_tenth_is_held_out(data, caplog, size, heldout):
    assert len(load_problem_set(data(*sums(size)), seed=0).heldout) == heldout
    said = f"Holding out {heldout} of {size} problems, a tenth. data.num_heldout sets another number."
    assert caplog.messages == ([said] if size < 2560 else [])


def test_data_with_one_problem_many_times_leave_nothing_to_train_on(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n' * 8)
    config = DataConfig(name="rows", path=str(tmp_path / "rows.jsonl"))
    with pytest.raises(DataError, match="each of the 8 has the same text as a held-out one"):
        load_problem_set(config, seed=0)


@pytest.mark.parametrize(("wanted", "heldout"), [(150, 150), (151, 30), (10**6, 30)])
def test_a_number_is_used_up_to_half_of_the_data_and_a_tenth_instead_of_more(data, caplog, wanted, heldout):
    assert len(load_problem_set(data(*sums(300), num_heldout=wanted), seed=0).heldout) == heldout
    said = f"Holding out 30 of 300 problems, a tenth: data.num_heldout={wanted} is more than half."
    assert caplog.messages == ([said] if wanted > 150 else [])


def test_a_single_problem_cannot_be_split(data):
    with pytest.raises(DataError, match=r"At least 2 problems are needed, .* The data have 1"):
        load_problem_set(data(row()), seed=0)


def test_only_problems_with_a_checkable_answer_are_held_out(data, caplog):
    general = [row(id=f"poem-{n}", problem=f"poem {n}", answer=None, grader="model") for n in range(30)]
    problems = load_problem_set(data(*sums(20), *general, num_heldout=10), seed=0)
    assert {problem.grader for problem in problems.heldout} == {"math"}
    assert len(problems.train) == 40
    assert len(load_problem_set(data(*sums(20), *general), seed=0).heldout) == 2
    assert "Holding out 2 of 20 problems with a checkable answer" in caplog.text
    with pytest.raises(DataError, match=r"Every problem has the grader `model`\. Add some"):
        load_problem_set(data(*general, num_heldout=1), seed=0)


# ------------------------------------------------------------ the built-in task


def test_the_built_in_task_has_its_own_held_out_problems():
    config = DataConfig(name="make_zero", source="builtin:make_zero", grader=Grader.expression, num_heldout=20)
    problems = load_problem_set(config, seed=0)
    assert problems.train == tuple(load(config))
    assert len(set(problems.heldout)) == 20
    assert not set(problems.heldout) & set(problems.train)
    assert {problem.grader for problem in problems.train + problems.heldout} == {"expression"}
    assert load_problem_set(config, seed=0) == problems
    assert set(load_problem_set(config, seed=1).heldout) != set(problems.heldout)


def test_the_built_in_task_holds_out_at_most_all_that_it_has(caplog):
    config = DataConfig(name="make_zero", source="builtin:make_zero", num_heldout=10**6)
    assert len(load_problem_set(config, seed=0).heldout) == 366
    assert "data.num_heldout=1000000: builtin:make_zero has 366 held-out problems, and all are used" in caplog.text
    config.num_heldout = None
    assert len(load_problem_set(config, seed=0).heldout) == 256


def test_an_unknown_built_in_task_is_rejected():
    with pytest.raises(ConfigError, match="builtin:make_zreo: the built-in tasks are builtin:make_zero, "):
        load(DataConfig(name="x", source="builtin:make_zreo"))


def test_every_fourth_problem_of_the_general_task_has_no_answer(conf):
    general, plain = (
        load_problem_set(conf(f"data/{name}", DataConfig), 0) for name in ("make_zero_general", "make_zero")
    )
    assert general.heldout == plain.heldout
    assert [problem.text for problem in general.train] == [problem.text for problem in plain.train]
    assert [problem.grader for problem in general.train[:5]] == ["expression"] * 3 + ["model", "expression"]
    assert {problem.answer for problem in general.train[3::4]} == {""}
    assert {problem.grader for problem in general.train[3::4]} == {"model"}
    assert sum(problem.grader == "model" for problem in general.train) == len(plain.train) // 4


# ------------------------------------------------------------ conf/data

# For each hub data set, in its published format: the file, a row of it, and the problem that the row becomes.
PUBLISHED = {
    "math_12k": ("data/train.jsonl", {"problem": "1+1?", "answer": "2"}, ("math_12k-1", "1+1?", "2")),
    "math_lvl3to5": (
        "simplelr_qwen_level3to5/train.parquet",
        {"prompt": [{"role": "user"}], "extra_info": {"question": "1+1?", "answer": "2"}},
        ("math_lvl3to5-1", "1+1?", "2"),
    ),
    "gsm8k": (
        "main/train.jsonl",
        {"question": "1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2"},
        ("gsm8k-1", "1+1?", "2"),
    ),
    "orz_57k": (
        "orz.json",
        [{"from": "human", "value": "1+1?"}, {"from": "assistant", "ground_truth": {"value": "2"}}],
        ("orz_57k-1", "1+1?", "2"),
    ),
    "asdiv": (
        "data/test.jsonl",
        {"id": "asdiv_a__nluds-0001", "question": "1+1?", "result": "2", "result_float": 2.0},
        ("asdiv_a__nluds-0001", "1+1?", "2"),
    ),
    "dapo_17k": (
        "en/train.jsonl",
        {"prompt": "1+1?", "solution": "2", "source_prompt": [{"role": "user"}], "reward_model": {"ground_truth": "2"}},
        ("dapo_17k-1", "1+1?", "2"),
    ),
    "deepmath_103k": (
        "data/train.jsonl",
        {"question": "1+1?", "final_answer": "2", "difficulty": 5.0, "topic": "t", "r1_solution_1": "..."},
        ("deepmath_103k-1", "1+1?", "2"),
    ),
    "deepscaler_40k": (
        "deepscaler.json",
        {"problem": "1+1?", "answer": "2", "solution": "..."},
        ("deepscaler_40k-1", "1+1?", "2"),
    ),
    "open_r1_math": (
        "data/train.jsonl",
        {"problem": "1+1?", "solution": "...", "answer": "2", "problem_type": "Algebra"},
        ("open_r1_math-1", "1+1?", "2"),
    ),
    "numina_math_1_5": (
        "data/train.jsonl",
        {
            **{"problem": "1+1?", "solution": "...", "answer": "2", "problem_type": "Algebra", "source": "olympiads"},
            **{"question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
        },
        ("numina_math_1_5-1", "1+1?", "2"),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_hub_data_set_of_conf_is_read_in_its_published_format(hub, conf, name):
    file, published, problem = PUBLISHED[name]
    config = conf(f"data/{name}", DataConfig)
    if file.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([published]), sink)
        content = sink.getvalue().to_pybytes()
    else:
        rows = [published] if file.endswith(".json") else published
        content = json.dumps(rows).encode()
    folder = file.partition("/")[0]
    card = f"---\nconfigs:\n- config_name: {config.subset}\n  data_files: {folder}/*\n---" if config.subset else "none"
    hub.files[config.source] = {"README.md": card.encode(), file: content}
    assert load(config) == [Problem(*problem)]


@pytest.mark.parametrize("name", [*PUBLISHED, "file"])
def test_a_local_file_has_the_default_columns_whatever_the_hub_calls_them(data, conf, name):
    config = conf(f"data/{name}", DataConfig)
    config.path = data(row() | {column: values[0] for column, values in config.filter.items()}).path
    assert load(config) == [Problem("a", "1+1?", "2")]


def test_a_local_copy_of_a_hub_data_set_is_recognised(data, conf, caplog):
    config = conf(
        "data/orz_57k", DataConfig, path=data({"0": {"value": "1+1?"}, "1": {"ground_truth": {"value": "2"}}}).path
    )
    config.columns.extra = ["1.ground_truth.value"]  # still the user's choice
    (problem,) = load(config)
    assert problem == Problem("orz_57k-1", "1+1?", "2", extra=problem.extra)
    assert problem.extra == {"1.ground_truth.value": "2"}
    assert (
        f"{config.path}: problems and answers are read from the columns of Open-Reasoner-Zero/orz_math_57k_collection, "
        "'0.value' and '1.ground_truth.value'." in caplog.messages
    )


# ------------------------------------------------------------ real data


@pytest.mark.parametrize(
    ("file", "size", "answer"),
    [("train/gsm8k_train", 7473, "72"), ("train/math_7500", 7500, "0"), ("train/orz57k_part", 1785, "n = 4")],
)
def test_real_files_load_completely(shared, conf, file, size, answer):
    config = conf("data/file", DataConfig, path=str(shared / f"data/{file}.jsonl"))
    problems = load(config)
    assert (len(problems), problems[0].answer) == (size, answer)
    split = load_problem_set(config, seed=0)
    num_heldout = min(256, size // 10)
    assert len(split.heldout) == num_heldout
    assert size - num_heldout - 8 < len(split.train) <= size - num_heldout  # duplicates of held-out ones are left out


def test_real_problems_are_identical_from_jsonl_parquet_and_arrow(shared, tmp_path):
    jsonl = shared / "data/train/math_7500.jsonl"
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "arrow")
    first, *others = (
        load(DataConfig(name="math", path=str(path))) for path in (jsonl, tmp_path / "a.parquet", tmp_path / "arrow")
    )
    assert all(problems == first for problems in others)


def test_only_problems_within_the_pass_rate_are_trained_on(tmp_path):
    rows = [{"id": str(n), "problem": f"{n} + 0?", "answer": str(n)} for n in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Problem n is solved in n of 10 samples; problem 11 has no pass rate.
    rates = [{"id": str(n), "pass_rate": n / 10, "n": 10} for n in range(11)]
    (tmp_path / "rates.jsonl").write_text("".join(json.dumps(rate) + "\n" for rate in rates))
    config = DataConfig(name="d", path=str(tmp_path / "train.jsonl"), num_heldout=1, pass_rate=(0.2, 0.8))
    config.pass_rates = str(tmp_path / "rates.jsonl")
    found = load_problem_set(config, seed=0)
    heldout_ids = {problem.id for problem in found.heldout}
    assert {problem.id for problem in found.train} == {str(n) for n in range(2, 9)} - heldout_ids

    config.pass_rate = (0.95, 0.99)
    with pytest.raises(DataError, match="leaves no problem to train on"):
        load_problem_set(config, seed=0)
    config.pass_rates = str(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"Set data\.pass_rates to a file that `r1zero analyze` wrote"):
        load_problem_set(config, seed=0)
