"""JSON lines: what ends a line, what is skipped, and how each fault is reported, in every reader of such files."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import grpo_cli
from grpo_cli.analysis.report import read_metrics
from grpo_cli.commands.grade import read_cases
from grpo_cli.config.data import DataConfig
from grpo_cli.data.problems import load_problem_set
from grpo_cli.data.sources import read_path
from grpo_cli.errors import DataError
from grpo_cli.evaluation.responses import StoredResponder
from grpo_cli.evaluation.samples import Sample, read_samples
from grpo_cli.jsonl import BOM, check_unique, json_text, read_jsonl, read_objects, with_nan
from grpo_cli.types import Problem, Verdict

NO_LINE_ENDS = "a\u2028b\u2029c\u0085d\fe\x1cf\vg"  # str.splitlines would split at these characters
PROBLEMS = [Problem(NO_LINE_ENDS, "?", "1")]


def raw(*rows) -> bytes:
    """The rows as JSON lines, without escapes for characters that JSON allows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_only_a_newline_ends_a_line(tmp_path):
    row = {"text": "a\u2028b\u2029c\u0085d"}
    file = write(tmp_path / "a.jsonl", BOM + raw(row).replace(b"\n", b"\r\n") + b"\n \t\r\n" + raw(row))
    assert list(read_objects(file)) == [(1, row), (4, row)]


def test_a_last_line_without_a_newline_is_read_unless_it_may_be_unfinished(tmp_path):
    file = write(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": 2}')
    assert list(read_objects(file)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert list(read_objects(file, drop_unfinished=True)) == [(1, {"a": 1})]


FAULTY = [
    (b"null", "line 2: null is not a JSON object"),
    (b"[1, 2]", r"line 2: \[1, 2\] is not a JSON object"),
    (b'"text"', 'line 2: "text" is not a JSON object'),
    (b"\f", "line 2 is not JSON"),
    (b'{"a": "\xff"}', "line 2 is not UTF-8: invalid start byte at byte 8"),
    (BOM + b"{}", "line 2 is not JSON"),  # allowed only at the start of a file
    (b'{"a": 1', "line 2 is not JSON: .* at column 8"),
    (b'{"a": ' + b"[" * 100_000, "line 2 is not JSON that can be read"),
    (b'{"a": ' + b"1" * 5_000 + b"}", "line 2 is not JSON that can be read"),
    (b"{}", "line 2: there is no 'a'. An object has a."),
    (b'{"a": {}}', "line 2: .*. An object has a."),
]


@pytest.mark.parametrize(("line", "message"), FAULTY, ids=[case[1] for case in FAULTY])
def test_the_error_for_a_faulty_line_names_it_and_says_what_it_should_be(tmp_path, line, message):
    file = write(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=f"a.jsonl, {message}") as error:
        read_jsonl(file, lambda row: int(row["a"]), "An object has a.")
    assert str(error.value).endswith("An object has a.")


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"a.jsonl cannot be read: No such file"):
        list(read_objects(tmp_path / "a.jsonl"))


def test_two_lines_with_the_same_id_are_both_named():
    check_unique(Path("a"), {1: "x", 3: "y"}, "the id")
    with pytest.raises(DataError, match="a, line 5: the id 'x' is already on line 1"):
        check_unique(Path("a"), {1: "x", 3: "y", 5: "x"}, "the id")


def test_a_case_can_contain_any_character(tmp_path):
    case = {"id": NO_LINE_ENDS, "gold": NO_LINE_ENDS, "completion": "a\u2028b"}
    [read] = read_cases(write(tmp_path / "a.jsonl", BOM + json.dumps(case, ensure_ascii=False).encode()))
    assert (read["id"], read["text"]) == (NO_LINE_ENDS, "a\u2028b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "p", "gold": 2, "completion": ""}', "line 2: the id 'p' is already on line 1"),
        ("null", "line 2: null is not a JSON object. Fix it. A case is a JSON object with id, gold"),
        ("[]", r"line 2: \[\] is not a JSON object"),
        ('{"id": null, "gold": 2, "completion": ""}', "line 2: id is null, and must be text or a number"),
        ('{"id": 2, "gold": null, "completion": ""}', "line 2: gold is null, and must be text or a number"),
        ('{"id": 2, "gold": [1], "completion": ""}', r"line 2: gold is \[1\], and must be text"),
        ('{"id": 2, "gold": 2, "completion": null}', "line 2: completion is null, and must be text"),
        ('{"id": 2, "gold": 2, "prefix": 1, "completion": ""}', "line 2: prefix is 1, and must be text"),
        ('{"id": 2, "gold": 2}', "line 2: there is no 'prediction'"),
    ],
)
def test_a_faulty_case_is_named(tmp_path, line, message):
    file = write(tmp_path / "a.jsonl", b'{"id": "p", "gold": 1, "completion": ""}\n' + line.encode())
    with pytest.raises(DataError, match=f"a.jsonl, {message}"):
        read_cases(file)


def test_a_response_can_contain_any_character(tmp_path):
    row = {"benchmark": "b", "id": NO_LINE_ENDS, "text": "a\u2028b"}
    stored = StoredResponder(write(tmp_path / "a.jsonl", BOM + raw(row, row | {"text": "c"}) + b"\r\n"))
    assert stored.num_samples("b", PROBLEMS) == 2


RESPONSE = '{"benchmark": "b", "id": "p", "text": "", "sample": 0'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (RESPONSE + "}", "line 2: the response 'b, p, sample 0' is already on line 1"),
        ("null", "line 2: null is not a JSON object. Fix it. A response is a JSON object with benchmark"),
        ("[1]", r"line 2: \[1\] is not a JSON object"),
        ('{"benchmark": "b", "id": "p", "text": null}', "line 2: text is null, and must be text"),
        ('{"benchmark": "b", "id": null, "text": ""}', "line 2: id is null, and must be text or a whole number"),
        ('{"benchmark": ["b"], "id": "p", "text": ""}', "line 2: benchmark is .*, and must be text"),
        (RESPONSE.replace("0", '"0"') + "}", "line 2: sample is .*, and must be a whole number"),
        (RESPONSE.replace("0", "true") + "}", "line 2: sample is true, and must be a whole number"),
        (RESPONSE.replace("0", "-1") + "}", "line 2: sample is -1, and must be 0 or more"),
        (RESPONSE + ', "num_tokens": 1e3}', "line 2: num_tokens is 1000.0, and must be a whole number"),
        (RESPONSE + ', "truncated": "no"}', "line 2: truncated is .*, and must be true or false"),
    ],
)
def test_a_faulty_response_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=f"a.jsonl, {message}"):
        StoredResponder(write(tmp_path / "a.jsonl", f"{RESPONSE}}}\n{line}\n".encode()))


def test_samples_are_split_only_at_newlines(tmp_path):
    made = Sample("b", "p", 0, 0, "a\u2028b\u0085", None, Verdict.wrong, 1, False, True)
    assert read_samples(write(tmp_path / "a.jsonl", raw(asdict(made)) + b'{"id": "cut o')) == [made]


def test_data_and_metrics_are_split_only_at_newlines(tmp_path):
    row = {"problem": "a\u2028b\u2029c\u0085d", "answer": "1", "step": 1}
    file = write(tmp_path / "a.jsonl", BOM + raw(row, row))
    assert read_path(str(file), "train", "data") == {"line 1": row, "line 2": row}
    assert read_metrics(file) == [row, row]


def test_a_row_that_is_a_list_is_named(tmp_path):
    for name, content, place in (("a.jsonl", b'{"a": 1}\n[1]', "line 2"), ("a.json", b'[{"a": 1}, [1]]', "row 2")):
        with pytest.raises(DataError, match=rf"{name}, {place}: \[1\] is not a JSON object"):
            read_path(str(write(tmp_path / name, content)), "train", "data")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "2", "pass_rate": NaN}', "line 2: pass_rate is nan, and must be a number from 0 to 1"),
        (b'{"id": "2", "pass_rate": 1.5}', "line 2: pass_rate is 1.5"),
        (b'{"id": "2", "pass_rate": null}', "line 2: pass_rate is None"),
        (b'{"id": "1", "pass_rate": 0.5}', "line 2: the pass rate of '1' is already on line 1"),
        (b"null", "line 2: null is not a JSON object. Fix it. Set data.pass_rates"),
    ],
)
def test_a_faulty_pass_rate_is_named(tmp_path, line, message):
    problems = [{"id": str(n), "problem": f"{n}?", "answer": "1"} for n in range(8)]
    config = DataConfig(name="d", path=str(write(tmp_path / "d.jsonl", raw(*problems))), num_heldout=1)
    config.pass_rate = (0.1, 0.9)
    config.pass_rates = str(write(tmp_path / "a.jsonl", b'{"id": "1", "pass_rate": 0.5}\n' + line))
    with pytest.raises(DataError, match=f"a.jsonl, {message}"):
        load_problem_set(config, seed=0)


def test_no_json_file_is_split_with_str_splitlines():
    """`read_text().splitlines()` is wrong for JSON, where a line may contain U+2028."""
    found = []
    for path in Path(grpo_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "splitlines" in ast.unparse(node.func):
                found += [f"{path.name}: {ast.unparse(node)}"] * ("read_text" in ast.unparse(node.func))
    assert found == ["performance.py: status.read_text(encoding='utf-8').splitlines()"]  # of /proc


def test_a_locale_without_utf_8_changes_nothing(tmp_path):
    cases = write(tmp_path / "cases.jsonl", raw({"id": "é", "gold": "日本", "completion": "<answer>日本</answer>"}))
    stages = "{rl: 'train run.name=${name}'}"
    write(tmp_path / "mine.yaml", f"name: données\nstages: {stages}".encode())
    script = f"""
import locale
from pathlib import Path
from omegaconf import OmegaConf
from grpo_cli.runs import folder
from grpo_cli.commands.grade import read_cases
from grpo_cli.config.template import TemplateConfig
from grpo_cli.files import write_whole
from grpo_cli.pipeline.stages import read_pipeline, stages_of
assert locale.getpreferredencoding(False) != "UTF-8"
assert read_cases(Path({str(cases)!r}))[0]["gold"] == "\\u65e5\\u672c"
write_whole(Path("copy.yaml"), Path("mine.yaml").read_text(encoding="utf-8"))
assert "run.name=donn\\u00e9es" in stages_of(read_pipeline("copy.yaml"), Path("p"))[0].words
with folder.run_folder_lock(Path("run"), TemplateConfig(text="\\u65e5"), lambda: None) as file:
    assert OmegaConf.load(file).text == "\\u65e5"
"""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **plain}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_nan_and_infinity_are_written_as_null_and_read_as_nan():
    text = json_text({"a": [1.5, float("nan")], "b": float("inf"), "c": "nan"})
    assert text == '{"a": [1.5, null], "b": null, "c": "nan"}'
    row = with_nan({"step": 1, "avg_se": None})
    assert row["step"] == 1
    assert row["avg_se"] != row["avg_se"]
