"""Benchmarks: data sets for evaluation only, read from rows of several layouts."""

import base64
import io
import json
import pickle
import random
import re
import zlib
from dataclasses import replace
from typing import Any

from grpo_cli.choices import Layout
from grpo_cli.config.data import BenchmarkConfig, ColumnsConfig
from grpo_cli.data.problems import builtin_task, load_problems, to_problems
from grpo_cli.data.rows import read_rows, shown_columns
from grpo_cli.data.sources import Rows
from grpo_cli.errors import DataError
from grpo_cli.types import Problem

Row = dict[str, Any]

IDS = ("id", "task_id", "question_id", "Record ID")
CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
LETTERS = "ABCD"
IN_A_BLOCK = "in a block that starts with ```python"


def load_benchmark(name: str, config: BenchmarkConfig) -> list[Problem]:
    """All problems of the benchmark, in the order of its source. For a built-in task: its held-out problems.

    A local file has the columns `config.columns`, or otherwise those of `config.layout`. Raises the same errors as
    `load_problems`.
    """
    key = f"benchmark.{name}"
    if task := builtin_task(config, key):
        return task.heldout_problems()
    if config.layout == Layout.answer:
        return load_problems(config, name, key)
    rows = read_rows(config, key)
    plain_columns = {config.columns.problem, config.columns.answer}
    if config.path is not None and any(plain_columns <= row.keys() for row in rows.values()):
        return to_problems(rows, config, name, key)
    config = replace(config, columns=ColumnsConfig(), source_columns=ColumnsConfig())
    return to_problems(_convert(rows, config, key), config, name, key)


def _convert(rows: Rows, config: BenchmarkConfig, key: str) -> Rows:
    """The rows converted to the columns `id`, `problem` and `answer`."""
    convert_row = {
        Layout.multiple_choice: _multiple_choice,
        Layout.humaneval: _humaneval,
        Layout.mbpp: _mbpp,
        Layout.livecodebench: _livecodebench,
    }[config.layout]
    converted = {}
    for place, row in rows.items():
        try:
            text, answer = convert_row(row)
        except DataError as fault:
            raise DataError(
                f"{config.path or config.source}, {place}: {fault}\n"
                f"Rows are read with {key}.layout={config.layout}. Fix them, or give a file with the columns 'problem' "
                f"and 'answer' as {key}.path=<file>."
            ) from fault
        problem_id = next((row[column] for column in IDS if column in row), None)
        converted[place] = {"id": problem_id, "problem": text, "answer": answer}
    return converted


def _multiple_choice(row: Row) -> tuple[str, str]:
    """Problem and answer of a GPQA row (arXiv:2311.12022). The order of the choices depends only on the question."""
    question, choices = _text(row, "Question"), [_text(row, choice) for choice in CHOICES]
    right = choices[0]
    random.Random(question).shuffle(choices)
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    text = f"{question}\n\n{listed}\n\nAnswer with the letter of the right choice."
    return text, LETTERS[choices.index(right)]


def _humaneval(row: Row) -> tuple[str, str]:
    """Problem and tests of a HumanEval row (arXiv:2107.03374)."""
    tests = {"tests": _text(row, "test", "tests"), "entry_point": _text(row, "entry_point")}
    tests["setup"] = _text(row, "prompt")
    text = f"Complete this function. Give the whole function {IN_A_BLOCK}.\n\n{_block(tests['setup'])}"
    return text, json.dumps(tests)


def _mbpp(row: Row) -> tuple[str, str]:
    """Problem and tests of an MBPP row (arXiv:2108.07732), from the full or the sanitized data set."""
    asserts = _texts(row, "test_list")
    if not asserts:
        raise _missing(row, ("test_list",))
    setup = "\n".join(_texts(row, "test_setup_code") + _texts(row, "test_imports"))
    task, shown = _text(row, "text", "prompt"), _block("\n".join(asserts))
    text = f"{task}\n\nYour code should pass these tests:\n\n{shown}\n\nGive the code {IN_A_BLOCK}."
    return text, json.dumps({"tests": asserts, "setup": setup, "entry_point": _entry_point(row, asserts)})


def _entry_point(row: Row, asserts: list[str]) -> str | None:
    """The name of the tested function, from the row or its reference solution; None if neither names it."""
    # The asserts alone are not enough: one task asks for a function `sum`, which is also a builtin.
    defined = re.findall(r"^def (\w+)", row.get("code") or "", re.MULTILINE)
    called = re.findall(r"\w+", asserts[0])
    return row.get("entry_point") or next((name for name in defined if name in called), None)


def _livecodebench(row: Row) -> tuple[str, str]:
    """Problem and tests of a LiveCodeBench row (arXiv:2403.07974). The tests include the public cases."""
    question, starter = _text(row, "question_content"), row.get("starter_code")
    public, private = _text(row, "public_test_cases"), _text(row, "private_test_cases")
    try:
        cases = json.loads(public) + _private_cases(private)
        if cases[0]["testtype"] == "functional":
            tests = {
                "fn_name": json.loads(row["metadata"])["func_name"],
                "inputs": [[json.loads(line) for line in case["input"].split("\n")] for case in cases],
                "outputs": [json.loads(case["output"]) for case in cases],
                "starter_code": starter or "",
            }
        else:
            tests = {"inputs": [case["input"] for case in cases], "outputs": [case["output"] for case in cases]}
    except (ValueError, LookupError, TypeError) as fault:
        raise DataError(f"the test cases cannot be read ({type(fault).__name__}: {fault}).") from fault
    if starter:
        task = f"Complete this code. Give the whole of it {IN_A_BLOCK}.\n\n{_block(starter)}"
    else:
        task = f"Write a program that reads standard input and writes standard output. Give it {IN_A_BLOCK}."
    return f"{question}\n\n{task}", json.dumps(tests)


def _private_cases(text: str) -> list[dict[str, str]]:
    """The cases from JSON text, or from JSON text that is pickled, compressed and base64-encoded."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    try:
        return json.loads(_TextUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load())
    except (zlib.error, pickle.UnpicklingError, EOFError, AttributeError) as fault:
        raise ValueError(fault) from fault


class _TextUnpickler(pickle.Unpickler):
    """Reads plain values only: a pickle that names a class or function could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the pickle contains {module}.{name}, but only text is accepted")


def _text(row: Row, *columns: str) -> str:
    """The text in the first of `columns` that the row has. Raises DataError if there is none."""
    value = next((row[column] for column in columns if column in row), None)
    if not isinstance(value, str) or not value.strip():
        raise _missing(row, columns)
    return value.strip()


def _texts(row: Row, column: str) -> list[str]:
    """The texts of a column that holds one text or a list; a list is stored as `<column>.0`, `<column>.1`, ..."""
    return [value for name, value in row.items() if name.partition(".")[0] == column and value]


def _missing(row: Row, columns: tuple[str, ...]) -> DataError:
    return DataError(f"no text in {' or '.join(map(repr, columns))}; the columns are {shown_columns(list(row))}.")


def _block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"
