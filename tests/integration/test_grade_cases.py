"""Published grader cases through `r1zero grade`: how often it must agree, and how rarely a wrong answer may pass."""

import json

import pytest

from grpo_cli.commands.grade import main


def graded(path, scratch):
    out = scratch / path.name
    main([str(path), f"out={out}"])
    return [
        {**json.loads(case), **json.loads(row)}
        for case, row in zip(path.read_text().splitlines(), out.read_text().splitlines(), strict=True)
    ]


@pytest.fixture(scope="module")
def cases(shared, tmp_path_factory):
    rows = graded(shared / "grader" / "public.jsonl", tmp_path_factory.mktemp("public"))
    return [row for row in rows if not row.get("contested") and not row["kind"].startswith("format_")]


@pytest.fixture(scope="module")
def adversarial(shared, tmp_path_factory):
    return graded(shared / "grader" / "adversarial_public.jsonl", tmp_path_factory.mktemp("adversarial"))


@pytest.fixture(scope="module")
def bug_reports(shared, tmp_path_factory):
    """The mathematics cases from public bug reports; the code cases need a sandbox and are tested elsewhere."""
    folder = tmp_path_factory.mktemp("hunt")
    lines = (shared / "grader" / "hunt_public.jsonl").read_text().splitlines(keepends=True)
    (folder / "cases.jsonl").write_text("".join(line for line in lines if json.loads(line).get("grader") != "code"))
    (folder / "verdicts").mkdir()
    return graded(folder / "cases.jsonl", folder / "verdicts")


def test_answers_from_public_bug_reports_are_judged_as_expected(bug_reports):
    assert [row["id"] for row in bug_reports if row["accuracy"] != row["expect_accuracy"]] == []


@pytest.mark.parametrize(("forms", "least"), [(("r1", "answer"), 0.97), (("text",), 0.93)])
def test_uncontested_cases_are_judged_as_published(cases, forms, least):
    right = [row["accuracy"] == row["expected"] for row in cases if row["form"] in forms]
    assert sum(right) / len(right) >= least


def test_at_most_one_wrong_answer_in_200_passes(cases):
    passed = [row["id"] for row in cases if row["accuracy"] > row["expected"]]
    assert len(passed) / len(cases) <= 0.005, passed


def test_every_adversarial_format_is_judged_as_expected(adversarial):
    assert [row["id"] for row in adversarial if row["format"] != row["expect_format"]] == []


def test_at_most_one_adversarial_answer_is_misjudged(adversarial):
    assert len([row["id"] for row in adversarial if row["accuracy"] != row["expect_accuracy"]]) <= 1


def test_no_adversarial_case_exceeds_its_time_limit(adversarial):
    # Timeouts are left out: they are limited by CPU time, which takes longer in wall-clock time on a busy machine.
    judged = [row for row in adversarial if row["verdict"] != "timeout"]
    assert [row["id"] for row in judged if row["ms"] > row["max_ms"]] == []
