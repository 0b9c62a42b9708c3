"""`r1zero sample` from the command line: it keeps and writes the right responses, and samples nothing twice."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

SAMPLED = ("sample", "sample.num_problems=30", "sample.n=4", "run.dir=run", "logger=none")
WRITTEN = ("sample/make_zero.jsonl", "traces.jsonl", "traces.md", "pairs.jsonl")


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, r1zero) -> Path:
    """The built-in base model, four responses to each of 30 problems, on one rank."""
    folder = tmp_path_factory.mktemp("sample")
    result = r1zero(*SAMPLED, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "dropped: correct" in result.stdout
    return folder / "run"


@pytest.fixture
def copied(uninterrupted, tmp_path) -> Path:
    return Path(shutil.copytree(uninterrupted, tmp_path / "run"))


def test_right_responses_are_kept_and_the_counts_add_up(uninterrupted):
    samples, traces = lines(uninterrupted / "sample/make_zero.jsonl"), lines(uninterrupted / "traces.jsonl")
    found = json.loads((uninterrupted / "sample.json").read_text())
    counts, right = found["yield"], {(s["id"], s["text"]) for s in samples if s["verdict"] == "correct"}
    assert len(samples) == counts["num_samples"] == 120
    assert sum(counts["dropped"].values()) + counts["kept"] == 120
    assert {(trace["id"], trace["response"]) for trace in traces} == right
    assert len(traces) == counts["kept"] == len(right)
    assert {trace["prompt"] for trace in traces} == {f"{trace['problem']} :" for trace in traces}
    assert sum(group["problems"] for group in found["difficulty"].values()) == 30
    assert sum(group["kept"] for group in found["difficulty"].values()) == counts["kept"]
    for name, file in {"traces": "traces.jsonl", "card": "traces.md"}.items():
        assert found["files"][name] == hashlib.sha256((uninterrupted / file).read_bytes()).hexdigest()


def test_a_pair_is_a_right_and_a_wrong_response(uninterrupted):
    verdicts = {(s["id"], s["text"]): s["verdict"] for s in lines(uninterrupted / "sample/make_zero.jsonl")}
    pairs = lines(uninterrupted / "pairs.jsonl")
    assert len(pairs) > 5
    assert {verdicts[pair["id"], pair["chosen"]] for pair in pairs} == {"correct"}
    assert {verdicts[pair["id"], pair["rejected"]] for pair in pairs} <= {"wrong", "unparsable"}


def test_an_interrupted_sampling_resumes_to_the_same_files_on_any_number_of_ranks(uninterrupted, copied, r1zero):
    store = copied / "sample/make_zero.jsonl"
    half = store.read_bytes().splitlines(keepends=True)[::2]
    (copied / "sample/make_zero.rank_1.part").write_bytes(b"".join(half) + b'{"benchmark": "make_z')
    for name in ("sample.json", *WRITTEN):
        (copied / name).unlink()

    again = r1zero(*SAMPLED, "cluster.ranks=2", cwd=copied.parent)
    assert again.returncode == 0, again.stderr
    assert "60 samples, 60 kept" in again.stdout
    assert {name: (copied / name).read_bytes() for name in WRITTEN} == {
        name: (uninterrupted / name).read_bytes() for name in WRITTEN
    }


def test_other_rules_choose_from_the_same_samples(uninterrupted, copied, r1zero):
    result = r1zero(
        *SAMPLED, "sample.keep=correct,well_formed", "sample.per_problem=1", "to=k.jsonl", cwd=copied.parent
    )
    assert result.returncode == 0, result.stderr
    assert "0 samples, 120 kept" in result.stdout
    assert "starting vLLM" not in result.stdout
    first = {trace["id"]: trace for trace in reversed(lines(uninterrupted / "traces.jsonl"))}
    assert sorted(lines(copied.parent / "k.jsonl"), key=str) == sorted(first.values(), key=str)
    assert (copied / "traces.jsonl").read_bytes() == (uninterrupted / "traces.jsonl").read_bytes()


def test_if_nothing_is_kept_the_error_names_the_rule_and_the_samples_stay(uninterrupted, copied, r1zero):
    result = r1zero(*SAMPLED, "sample.min_tokens=1000", cwd=copied.parent)
    assert result.returncode == 1
    assert "None of 120 responses is kept. Dropped by rule: correct " in result.stderr
    assert "Traceback" not in result.stderr
    store = "sample/make_zero.jsonl"
    assert (copied / store).read_bytes() == (uninterrupted / store).read_bytes()


def test_a_file_that_the_run_did_not_write_is_not_overwritten(copied, r1zero):
    (copied.parent / "mine.jsonl").write_text("precious\n")
    result = r1zero(*SAMPLED, "to=mine.jsonl", cwd=copied.parent)
    assert result.returncode == 1
    assert "mine.jsonl exists, but this run did not write it" in result.stderr
    assert (copied.parent / "mine.jsonl").read_text() == "precious\n"
