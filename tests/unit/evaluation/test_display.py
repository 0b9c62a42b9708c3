import io
import math

from rich.console import Console

from grpo_cli.choices import Language
from grpo_cli.evaluation.display import plot_curves, result_table
from grpo_cli.evaluation.measures import macro_average, measure
from grpo_cli.types import Verdict


def test_benchmarks_have_the_same_weight_in_the_macro_average():
    # The errors of independent means add up in squares: sqrt(0.03^2 + 0.04^2) / 2.
    average = macro_average([{"avg": 0.2, "avg_se": 0.03}, {"avg": 0.6, "avg_se": 0.04}])
    assert math.isclose(average["avg"], 0.4)
    assert math.isclose(average["avg_se"], 0.025)


def test_the_table_shows_each_benchmark_at_its_largest_k(sample):
    once = measure([sample("p", verdict=Verdict.correct), sample("q")], None)
    often = measure([sample("p", n, verdict=Verdict.correct) for n in range(4)], None)
    printed = io.StringIO()
    Console(file=printed, width=140).print(result_table({"one": once, "four": often}))
    assert "pass@4" in printed.getvalue()
    assert "50.0% ± 50.0%" in printed.getvalue()
    assert "macro average" in printed.getvalue()


def test_the_table_has_a_language_column_if_it_was_measured(sample):
    samples = [sample("p", text="ab д"), sample("q", text="ab д")]
    printed = io.StringIO()
    measured = {"plain": measure(samples, None), "other": measure(samples, None, Language.en)}
    Console(file=printed, width=140).print(result_table(measured))
    assert "language" in printed.getvalue()
    assert "66.7%" in printed.getvalue()
    printed = io.StringIO()
    Console(file=printed, width=140).print(result_table({"plain": measured["plain"]}))
    assert "language" not in printed.getvalue()


def test_the_curves_are_saved_as_a_png(tmp_path):
    plot_curves({"one": [0.5], "four": [0.1, 0.2, 0.3, 0.4]}, tmp_path / "eval.png")
    assert (tmp_path / "eval.png").read_bytes().startswith(b"\x89PNG")
