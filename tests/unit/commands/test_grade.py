import json

import pytest
from rich.console import Console

from grpo_cli.commands import grade
from grpo_cli.commands.grade import main
from grpo_cli.errors import DataError


def graded(tmp_path, *cases):
    (tmp_path / "cases.jsonl").write_text("\n".join(json.dumps(case) for case in cases) + "\n")
    main([str(tmp_path / "cases.jsonl"), f"out={tmp_path / 'verdicts.jsonl'}"])
    return [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]


def test_the_form_of_a_case_decides_how_its_answer_is_found(tmp_path, capsys):
    r1, boxed, answer, text = graded(
        tmp_path,
        {"id": "r1", "gold": "42", "completion": "so</think> <answer>42</answer>", "prefix": "<think>", "other": [1]},
        {"id": 2, "gold": "42", "prediction": r"\boxed{41}", "form": "boxed"},
        {"id": 3, "gold": r"\frac{1}{2}", "completion": "0.5", "form": "answer"},
        {"id": 4, "gold": r"so \boxed{3}", "completion": "The answer is 3.", "form": "text"},
    )
    assert {**r1, "ms": 0} == {
        "id": "r1", "accuracy": 1, "format": 1, "verdict": "correct", "extracted": "42", "gold": "42",
        "end": "<think>so</think> <answer>42</answer>", "reason": "written like the gold answer", "ms": 0,
    }  # fmt: skip
    assert (boxed["verdict"], boxed["extracted"], boxed["reason"]) == ("wrong", "41", "not the gold answer")
    assert (answer["accuracy"], answer["format"]) == (1, 0)
    assert text["verdict"] == "correct"
    assert "4 cases" in capsys.readouterr().out


def test_the_table_says_why_each_case_got_its_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cases = [
        {"id": "a", "gold": "42", "completion": r"\boxed{41}", "form": "boxed"},
        {"id": "[b]", "gold": "42", "completion": "The answer is 42.", "form": "boxed"},
    ]
    graded(tmp_path, *cases)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["a", "wrong", "41", "42", "not the gold answer"] in lines
    assert ["[b]", "unparsable", "none; it ends in: The answer is 42.", "42", r"no \boxed{}"] in lines


def test_of_many_cases_the_table_shows_those_that_are_not_correct(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cases = [{"id": f"c{n}", "gold": "42", "completion": f"{42 + (n == 70)}", "form": "answer"} for n in range(71)]
    assert len(graded(tmp_path, *cases)) == 71
    shown = capsys.readouterr().out
    assert "40 of 71 cases, first those that are not correct" in shown
    assert "c70" in shown
    assert "c38" in shown
    assert "c39" not in shown


def test_grading_that_takes_long_shows_how_many_cases_are_done(tmp_path, monkeypatch, shown):
    judge = grade._judge

    def slow(verifier, case):
        shown.wait_for(f"grading: {case['id']} of 2")
        return judge(verifier, case)

    monkeypatch.setattr(grade, "_judge", slow)
    monkeypatch.setattr(grade, "Screen", lambda **_: Console(file=shown))
    graded(tmp_path, *({"id": n, "gold": "1", "completion": "1", "form": "answer"} for n in (0, 1)))


def test_the_folder_of_out_must_exist(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["cases.jsonl", f"out={tmp_path}/absent/verdicts.jsonl"])
    assert f"there is no folder {tmp_path}/absent" in capsys.readouterr().err


def test_a_missing_answer_has_a_reason(tmp_path):
    [row] = graded(tmp_path, {"id": 1, "gold": "42", "completion": "<think>x</think> <answer>42"})
    assert (row["verdict"], row["extracted"]) == ("unparsable", None)
    assert row["reason"] == "not exactly one <answer> block"


def test_a_generated_completion_and_an_expression_can_be_graded(tmp_path):
    long, expression = graded(
        tmp_path,
        {"id": 1, "gold": "42", "completion": None,
         "gen": {"prefix": "<think>", "repeat": "<answe", "times": 9, "suffix": "</think> <answer>42</answer>"}},
        {"id": 2, "gold": "1 2 = 3", "completion": "1 + 2", "form": "answer", "grader": "expression"},
    )  # fmt: skip
    assert long["accuracy"] == expression["accuracy"] == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cases.jsonl cannot be read: there is no such file or folder. Give a JSONL file of cases"),
        ("", "is empty"),
        ('{"id": 1}', "line 1"),
        ("[]", "line 1"),
        ('{"id": 1, "gold": "1", "completion": "1"}\nnot json', "line 2"),
        ('{"id": 1, "gold": "1", "completion": "1", "form": "essay"}', "essay"),
        ('{"id": 1, "gold": "1", "completion": "1", "grader": "model"}', "is a reward model and cannot be used here"),
        ('{"id": 1, "gold": "1", "completion": 1}', "line 1"),
        (b"\xff\xfe", "line 1 is not UTF-8"),
    ],
)
def test_the_error_for_a_bad_file_names_the_line(tmp_path, content, fault):
    path = tmp_path / "cases.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=fault):
        main([str(path)])


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.partition("examples:")[2].count("r1zero grade ") == 4
