"""The comparisons of trained arms: their files, figures and pictures, without training."""

import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from grpo_cli.data import make_zero_sizes

ROWS = [
    {"step": 0, "eval/heldout/avg": 0.25},
    {"step": 1, "group/agreeing": 0.75, "total/samples": 8},
    {"step": 2, "group/agreeing": 0.25, "total/samples": 16, "eval/heldout/avg": 0.875},
    {"step": 3, "group/agreeing": 0.0, "total/samples": 24, "eval/heldout/avg": 0.8125},
]


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return import_module("curves")


def test_the_examples_are_copied_with_the_constants_of_the_arms(curves, tmp_path):
    curves.copy_objectives(tmp_path)
    assert "WEIGHT = 1.0\n" in (tmp_path / "kimi_1.py").read_text()
    assert "KEEP = 4\n" in (tmp_path / "gfpo_4.py").read_text()


def test_the_mixed_problems_are_half_small_and_half_large_and_all_different(curves, tmp_path):
    curves.write_mixed_problems(tmp_path)
    texts = [json.loads(line)["problem"] for line in (tmp_path / "mixed.jsonl").read_text().splitlines()]
    assert len(set(texts)) == 384
    assert set(Counter(map(make_zero_sizes.size_of, texts)).values()) == {192}


def test_the_columns_of_a_run(curves):
    # signal: the mean of 0.25, 0.75 and 1
    assert curves.mean_signal(ROWS) == "0.67"
    assert curves.last("eval/heldout/avg", 3)(ROWS) == "0.812"
    assert curves.first_at(0.8, "total/samples")(ROWS) == "16"
    assert curves.first_at(0.2, "step")(ROWS) == "0"
    assert curves.first_at(0.9, "step")(ROWS) == "-"


def test_a_figure_is_drawn_from_runs_of_all_its_arms(curves, tmp_path):
    comparison = curves.CURRICULUM
    runs = {(arm, seed): ROWS for arm in comparison.drawn for seed in (0, 1)}
    curves.draw(comparison, runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
