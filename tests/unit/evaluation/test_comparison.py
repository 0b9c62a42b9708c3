import json
from dataclasses import asdict

import pytest
from rich.console import Console

from grpo_cli.errors import DataError
from grpo_cli.evaluation.comparison import compare, comparison_table
from grpo_cli.evaluation.samples import Sample
from grpo_cli.types import Verdict


def write_run(folder, **benchmarks):
    """A run folder, from benchmark to problem to whether each of its samples is right, such as "101"."""
    (folder / "eval").mkdir(parents=True)
    for benchmark, problems in benchmarks.items():
        samples = [
            Sample(
                benchmark=benchmark,
                id=id,
                sample=number,
                seed=0,
                text="",
                extracted=None,
                verdict=Verdict.correct if digit == "1" else Verdict.wrong,
                num_tokens=1,
                truncated=False,
                well_formed=True,
            )
            for id, digits in problems.items()
            for number, digit in enumerate(digits)
        ]
        lines = "".join(json.dumps(asdict(sample)) + "\n" for sample in samples)
        (folder / "eval" / f"{benchmark}.jsonl").write_text(lines)
    return folder


def test_shared_problems_are_compared_and_the_others_counted(tmp_path):
    a = write_run(tmp_path / "a", math={"1": "10", "2": "00", "3": "11", "only": "11"})
    b = write_run(tmp_path / "b", math={"3": "1111", "2": "1000", "1": "1111", "x": "0", "y": "0"})
    (comparison,) = compare(a, b)
    assert (comparison.num_shared, comparison.num_only_a, comparison.num_only_b) == (3, 1, 2)
    # a: 1/2, 0, 1; b: 1, 1/4, 1
    assert (comparison.mean_a, comparison.mean_b) == (0.5, 0.75)
    assert comparison.difference.mean == 0.25
    assert 0 <= comparison.difference.low < 0.25 < comparison.difference.high <= 0.5
    assert 0 < comparison.difference.p_value < 1


def test_only_benchmarks_with_shared_problems_are_listed(tmp_path):
    a = write_run(tmp_path / "a", aime={"1": "1", "2": "0"}, math={"1": "1", "2": "0"}, amc={"1": "1"}, empty={})
    b = write_run(tmp_path / "b", aime={"8": "1", "9": "0"}, math={"1": "1", "2": "0"}, gsm={"1": "1"}, empty={})
    assert [comparison.benchmark for comparison in compare(a, b)] == ["math"]


def test_a_run_compared_with_itself_shows_no_difference(tmp_path):
    run = write_run(tmp_path / "a", math={"1": "10", "2": "00"}, aime={"1": "1", "2": "0"})
    assert [(c.difference.mean, c.difference.p_value) for c in compare(run, run)] == [(0, 1), (0, 1)]


def test_a_folder_without_samples_is_rejected_with_advice(tmp_path):
    a, bare = write_run(tmp_path / "a", math={"1": "1"}), tmp_path / "bare"
    bare.mkdir()
    for pair in ((a, bare), (bare, a)):
        with pytest.raises(DataError, match=r"bare has no eval/\*\.jsonl\. Give the run folder of a finished"):
            compare(*pair)


def test_runs_without_a_common_problem_are_rejected_with_advice(tmp_path):
    a = write_run(tmp_path / "a", math={"1": "1"})
    b = write_run(tmp_path / "b", aime={"1": "1"}, math={"2": "1"})
    with pytest.raises(DataError, match=r"one has math, the other aime, math\. Evaluate both on the same"):
        compare(a, b)


def test_the_table_has_one_row_per_benchmark(tmp_path):
    a = write_run(tmp_path / "a[red]", math={"1": "0", "2": "0", "3": "1"}, aime={"1": "1", "2": "1"})
    b = write_run(tmp_path / "b", math={"1": "1", "2": "1"}, aime={"1": "0", "2": "0"})
    console = Console(width=120)
    with console.capture() as capture:
        console.print(comparison_table(compare(a, b), a, b))
    rows = [[cell.strip() for cell in line.split(line[0])[1:-1]] for line in capture.get().splitlines()]
    assert ["benchmark", "problems", "only one has", "a[red]", "b", "difference", "95 %", "p"] in rows
    assert ["aime", "2", "0 + 0", "100.0%", "0.0%", "-100.0", "-100.0 to +31.5", "0.5000"] in rows
    assert ["math", "2", "1 + 0", "0.0%", "100.0%", "+100.0", "-31.5 to +100.0", "0.5000"] in rows


def test_runs_with_the_same_name_are_shown_by_their_paths(tmp_path):
    a = write_run(tmp_path / "one" / "run", math={"1": "0", "2": "0"})
    b = write_run(tmp_path / "two" / "run", math={"1": "1", "2": "1"})
    headers = [column.header for column in comparison_table(compare(a, b), a, b).columns]
    assert headers[3:5] == [str(a), str(b)]
