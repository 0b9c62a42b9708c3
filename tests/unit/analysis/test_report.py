import json
import subprocess
import sys

import pytest

from grpo_cli.analysis.report import evaluated_rows, plot_learning_curve, read_metrics, read_result, write_result
from grpo_cli.errors import DataError

ROWS = [
    {"step": 0, "eval/heldout/avg": 0.1, "eval/heldout/greedy": 0.2},
    {"step": 1, "reward_term/accuracy/mean": 0.2, "length/mean": 18.0, "reflection/wait_rate": 0.2},
    {"step": 2, "reward_term/accuracy/mean": 0.3, "length/mean": 20.0, "reflection/wait_rate": 0.4},
]


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_an_incomplete_last_row_is_left_out(tmp_path):
    assert read_metrics(write(tmp_path / "metrics.jsonl", ROWS, tail='{"step": 3')) == ROWS


def test_the_learning_curve_is_a_small_png(tmp_path):
    png = tmp_path / "learning_curve.png"
    plot_learning_curve(write(tmp_path / "metrics.jsonl", ROWS), png)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_size < 150_000


def test_the_accuracy_of_a_run_of_an_earlier_version_is_drawn(tmp_path):
    old = [{name.replace("reward_term/accuracy/mean", "reward/accuracy"): row[name] for name in row} for row in ROWS]
    assert old != ROWS
    for name, rows in {"old": old, "new": ROWS}.items():
        plot_learning_curve(write(tmp_path / f"{name}.jsonl", rows), tmp_path / f"{name}.png")
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()


def test_a_run_without_evaluations_also_has_a_learning_curve(tmp_path):
    plot_learning_curve(write(tmp_path / "metrics.jsonl", ROWS[1:]), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()


def test_matplotlib_is_not_imported_before_something_is_drawn():
    script = "import sys, grpo_cli.analysis.report; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_a_result_is_read_back_and_a_damaged_one_is_named(tmp_path):
    assert read_result(tmp_path) is None
    write_result(tmp_path, {"step": 4, "eval/heldout/avg": 0.5})
    assert read_result(tmp_path) == {"step": 4, "eval/heldout/avg": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    for content, fault in ((b"", "not JSON"), (b"[1]", "not a JSON object"), (b"{}", "no step"), (b"\xff", "UTF-8")):
        (tmp_path / "result.json").write_bytes(content)
        with pytest.raises(DataError, match=f"result.json.*{fault}"):
            read_result(tmp_path)


def test_a_row_without_its_step_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"reward/mean": 1}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2 has no step"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_the_error_for_a_missing_last_evaluation_says_how_to_repeat_it(tmp_path):
    rows = '{"step": 0, "eval/a": 1}\n{"step": 1}\n{"step": 2, "eval/a": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(rows)
    assert [row["step"] for row in evaluated_rows(tmp_path, 2)] == [0, 2]
    for rows in ("", '{"step": 0, "eval/a": 1}\n{"step": 1}\n'):
        (tmp_path / "metrics.jsonl").write_text(rows)
        with pytest.raises(DataError, match=r"no row for the last step, 2.*Move the last folder"):
            evaluated_rows(tmp_path, 2)
