"""What a pipeline tells of its stages, from folders as the stages leave them; the sums are worked by hand."""

import json

import numpy
import pytest
from safetensors.numpy import save_file

from grpo_cli.pipeline.report import Point, curves, num_parameters, plot, report_markdown, report_rows

SAMPLING = {"n": 4, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128}


def record(name, command, *sources, evaluates=None, status="done"):
    return {
        **{"name": name, "command": command, "sources": list(sources), "evaluates": evaluates, "status": status},
        "seconds": 10.0,
    }


def evaluated(folder, avg, **more):
    folder.mkdir()
    figures = {"avg": avg, "pass@1": avg, "pass@4": avg + 0.1, "length": 20.0, "well_formed": 0.9, **more}
    benchmarks = {"made": figures | {"data": {"source": "builtin:made"}, "curve": [avg]}}
    found = {"benchmarks": benchmarks, "macro_average": {"avg": avg, "avg_se": 0.02}, "sampling": SAMPLING}
    (folder / "eval.json").write_text(json.dumps(found))


def with_weights(folder, *shapes):
    """A model's folder: in its file of weights the header alone matters."""
    folder.mkdir(parents=True)
    tensors = {f"w{number}": numpy.zeros(shape, numpy.float32) for number, shape in enumerate(shapes)}
    save_file(tensors, folder / "model.safetensors")


def trained(folder, *rows, **settings):
    with_weights(folder / "model", [10, 20], [300])  # 500 parameters
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {"eval": SAMPLING, "rollout": {"max_new_tokens": 128}, "data": {"source": "builtin:made"}} | settings
    (folder / "config.yaml").write_text(json.dumps(found))


def sampled(folder, model, *, responses, tokens):
    folder.mkdir()
    found = {
        "yield": {"kept": 30, "num_samples": responses, "generated_tokens": tokens},
        "model": {"path": str(model)},
    }
    (folder / "sample.json").write_text(json.dumps(found))


def step(number, responses=0, tokens=0, trained=0, **more):
    row = {"step": number, "perf/trained_tokens": trained} | more
    return row | ({"rollout/tokens": tokens, "length/mean": tokens / responses} if responses else {})


@pytest.fixture
def star(tmp_path):
    """Two rounds of sampling and fine-tuning, and a stage of RL from the same base."""
    with_weights(tmp_path / "base_model", [100])
    evaluated(tmp_path / "base_eval", 0.2)
    sampled(tmp_path / "draw_1", tmp_path / "base_model", responses=100, tokens=1000)
    trained(tmp_path / "learn_1", step(1, trained=400), step(2, trained=600))
    evaluated(tmp_path / "learn_1_eval", 0.3)
    sampled(tmp_path / "draw_2", tmp_path / "learn_1/model", responses=100, tokens=3000)
    trained(tmp_path / "learn_2", step(1, trained=2000))
    evaluated(tmp_path / "learn_2_eval", 0.4)
    heldout = {"eval/heldout/avg": 0.35}
    trained(
        tmp_path / "rl",
        {"step": 0, "eval/heldout/avg": 0.21},
        step(1, 40, 800, 1600),
        step(1, 50, 1000, 2000, **heldout),  # done again after a stop: the last counts
        step(2, 50, 1000, 3000, **{"eval/heldout/avg": 0.55}),
    )
    evaluated(tmp_path / "rl_eval", 0.5, language=0.75)
    records = [
        record("base_eval", "eval", evaluates="base"),
        record("draw_1", "sample"),
        record("learn_1", "sft", "draw_1"),
        record("learn_1_eval", "eval", "learn_1", evaluates="learn_1"),
        record("draw_2", "sample", "learn_1"),
        record("learn_2", "sft", "draw_2"),
        record("learn_2_eval", "eval", "learn_2", evaluates="learn_2"),
        record("rl", "train"),
        record("rl_eval", "eval", "rl", evaluates="rl"),
    ]
    return records, tmp_path


def test_each_stage_is_told_with_its_cost(star):
    rows = {row.stage: row for row in report_rows(*star)}
    assert list(rows) == ["base", "draw_1", "learn_1", "draw_2", "learn_2", "rl"]
    assert rows["base"].metrics["avg"] == 0.2
    # 2 x 100 parameters x 1,000 tokens, and 2 x 500 x 3,000
    assert rows["draw_1"].gflop == pytest.approx(2e5 / 1e9)
    assert rows["draw_2"].gflop == pytest.approx(3e6 / 1e9)
    assert rows["draw_1"].kept == "30 of 100"
    # 6 x 500 x 1,000
    assert (rows["learn_1"].trained_tokens, rows["learn_1"].gflop) == (1000, pytest.approx(3e6 / 1e9))
    # 2 x 500 x 2,000 + 6 x 500 x 5,000
    assert (rows["rl"].responses, rows["rl"].generated_tokens, rows["rl"].trained_tokens) == (100, 2000, 5000)
    assert rows["rl"].gflop == pytest.approx(17e6 / 1e9)


def test_the_table_has_what_was_measured(star):
    markdown = report_markdown(report_rows(*star), "star")
    assert "| base | 20.0% ± 2.0% | 30.0% (n = 4) | 20.0 | 90.0% |  |  |  |  |  |  |" in markdown
    assert "| rl | 50.0% ± 2.0% | 60.0% (n = 4) | 20.0 | 90.0% | 75.0% |  | 2,000 | 5,000 | 0.0 | 10 |" in markdown


def test_only_what_is_done_is_reported(star):
    records, folder = star
    records[2]["status"] = "running"
    records[3:] = [step | {"status": "waiting"} for step in records[3:]]
    assert [row.stage for row in report_rows(records, folder)] == ["base", "draw_1"]
    assert curves(records, folder) == {}


def test_rounds_are_one_curve_and_rl_beside_them_another_with_its_own_evaluations(star):
    assert curves(*star) == {
        "learn_2": [Point(0, 0.2), Point(100, 0.3), Point(200, 0.4)],
        "rl": [Point(0, 0.2), Point(50, 0.35), Point(100, 0.5)],
    }


@pytest.mark.parametrize("other", ["max_new_tokens", "source"])
def test_an_evaluation_that_does_not_match_gives_no_points_inside(star, other):
    records, folder = star
    settings = json.loads((folder / "rl/config.yaml").read_text())
    if other == "source":
        settings["data"]["source"] = "builtin:another"
    else:
        settings["rollout"]["max_new_tokens"] = 64
    (folder / "rl/config.yaml").write_text(json.dumps(settings))
    assert curves(records, folder)["rl"] == [Point(0, 0.2), Point(100, 0.5)]


def test_a_benchmark_of_the_pipeline_that_training_evaluates_alike_gives_points(star):
    records, folder = star
    rows = [step(1, 50, 500, **{"eval/made/avg": 0.45}), step(2, 50, 500, **{"eval/made/avg": 0.49})]
    (folder / "rl/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert curves(records, folder)["rl"] == [Point(0, 0.2), Point(50, 0.45), Point(100, 0.5)]


def test_a_stage_counts_the_responses_of_all_that_led_to_it_once(tmp_path):
    # sample comes from rl; sft takes of both: 60 + 20 responses, not 60 + 60 + 20
    evaluated(tmp_path / "base_eval", 0.1)
    trained(tmp_path / "rl", step(1, 60, 600))
    evaluated(tmp_path / "rl_eval", 0.2)
    sampled(tmp_path / "draw", tmp_path / "rl/model", responses=20, tokens=200)
    trained(tmp_path / "sft", step(1, trained=10))
    evaluated(tmp_path / "sft_eval", 0.3)
    records = [
        record("base_eval", "eval", evaluates="base"),
        record("rl", "train"),
        record("rl_eval", "eval", "rl", evaluates="rl"),
        record("draw", "sample", "rl"),
        record("sft", "sft", "rl", "draw"),
        record("sft_eval", "eval", "sft", evaluates="sft"),
    ]
    assert curves(records, tmp_path) == {"sft": [Point(0, 0.1), Point(60, 0.2), Point(80, 0.3)]}


def test_the_parameters_of_a_sharded_model_add_up(tmp_path):
    with_weights(tmp_path / "m", [2, 3], [4])
    (tmp_path / "m/model.safetensors").rename(tmp_path / "m/model-00001-of-00002.safetensors")
    with_weights(tmp_path / "n", [5])
    (tmp_path / "n/model.safetensors").rename(tmp_path / "m/model-00002-of-00002.safetensors")
    assert num_parameters(tmp_path / "m") == 15
    assert num_parameters(tmp_path / "n") is None


def test_a_picture_is_drawn(tmp_path):
    plot({"rl": [Point(0, 0.2), Point(100, 0.5)]}, tmp_path / "pipeline.png")
    assert (tmp_path / "pipeline.png").read_bytes().startswith(b"\x89PNG")
