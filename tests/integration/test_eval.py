"""`r1zero eval` and `r1zero analyze` from the command line: they write all files and sample nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from grpo_cli.data.random_base import END, build_base

SAMPLED = ("eval", "eval.n=8", "eval.temperature=1", "logger=none")


def samples(run_dir: Path, benchmark: str = "make_zero") -> list[dict]:
    return [json.loads(line) for line in (run_dir / "eval" / f"{benchmark}.jsonl").read_text().splitlines()]


def results(run_dir: Path) -> dict:
    return json.loads((run_dir / "eval.json").read_text())


def metrics(run_dir: Path) -> dict:
    """The results of the built-in benchmark, without the speed."""
    return {key: value for key, value in results(run_dir)["benchmarks"]["make_zero"].items() if key != "speed"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, r1zero) -> Path:
    """The built-in base model, eight samples per problem, on one rank."""
    folder = tmp_path_factory.mktemp("eval")
    result = r1zero(*SAMPLED, "run.dir=run", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "pass@8" in result.stdout
    return folder / "run"


def test_every_problem_has_its_samples_and_its_metrics(uninterrupted):
    lines = samples(uninterrupted)
    assert len(lines) == 366 * 8
    found = metrics(uninterrupted)
    assert found["avg"] == sum(line["verdict"] == "correct" for line in lines) / len(lines)
    assert found["avg_low"] < found["avg"] < found["avg_high"]
    assert found["pass@1"] < found["pass@4"] < found["pass@8"] == found["curve"][-1]
    assert (uninterrupted / "eval.png").stat().st_size > 1000


def test_the_results_hold_what_is_needed_to_repeat_them(uninterrupted):
    found = results(uninterrupted)
    assert found["versions"].keys() >= {"torch", "transformers", "r1zero"}
    sampling = {"n": 8, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 3000, "language": None, "seed": 0}
    assert found["sampling"] == sampling
    assert found["engine"] == {"device": "cpu", "dtype": "fp32"}
    assert len(found["model"]["weights_sha256"]) == len(metrics(uninterrupted)["data"]["problems_sha256"]) == 64


def test_a_killed_evaluation_resumes_to_the_same_results_on_any_number_of_ranks(uninterrupted, tmp_path, r1zero):
    script = Path(sys.executable).parent / "r1zero"
    process = subprocess.Popen(
        [script, *SAMPLED, "run.dir=run", "cluster.ranks=2"], cwd=tmp_path, start_new_session=True
    )
    parts = [tmp_path / "run/eval" / f"make_zero.rank_{rank}.part" for rank in (0, 1)]
    deadline = time.monotonic() + 300
    while not all(part.exists() and part.read_bytes().count(b"\n") > 50 for part in parts):
        assert process.poll() is None, "it finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _kill_all(process)
    kept = sum(part.read_bytes().count(b"\n") for part in parts)
    assert kept < 366 * 8, "it was killed after the last sample"

    again = r1zero(*SAMPLED, "run.dir=run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{366 * 8 - kept} samples, {kept} kept" in again.stdout
    assert samples(tmp_path / "run") == samples(uninterrupted)
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def _kill_all(process: subprocess.Popen) -> None:
    """Send SIGKILL to the launcher and its ranks, which have their own sessions."""
    import psutil

    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in processes:
        os.kill(member.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(processes)


def test_finished_samples_are_not_sampled_again(uninterrupted, r1zero):
    before = samples(uninterrupted)
    again = r1zero(*SAMPLED, "run.dir=run", cwd=uninterrupted.parent)
    assert "0 samples, 2928 kept" in again.stdout
    assert "starting vLLM" not in again.stdout
    assert samples(uninterrupted) == before


def test_samples_with_other_settings_are_not_changed(uninterrupted, r1zero):
    result = r1zero(*SAMPLED, "eval.temperature=0.6", "run.dir=run", cwd=uninterrupted.parent)
    assert result.returncode == 1
    assert "eval.temperature: 1.0 in the folder, 0.6 now" in result.stderr


def test_stored_responses_get_the_same_scores_as_when_sampled(uninterrupted, tmp_path, r1zero):
    stored = uninterrupted / "eval/make_zero.jsonl"
    result = r1zero("eval", "--rescore", str(stored), "logger=none", "run.dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def test_two_evaluations_are_compared_problem_by_problem(uninterrupted, r1zero):
    result = r1zero("eval", "--compare", "run", "run", cwd=uninterrupted.parent)
    assert result.returncode == 0, result.stderr
    assert "make_zero" in result.stdout


def test_an_over_long_prompt_counts_as_wrong_and_is_listed(tmp_path, r1zero):
    rows = [{"id": "short", "problem": "1 + 1?", "answer": "2"}, {"id": "long", "problem": "1" * 9000, "answer": "2"}]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = r1zero(
        *("eval", "model=random", "benchmark=file", "benchmark.file.path=problems.jsonl", "run.dir=run"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    found = results(tmp_path / "run")["benchmarks"]["file"]
    assert (found["num_problems"], found["skipped"]) == (2, 0.5)
    assert found["skipped_problems"] == {"long": "the prompt has 9000 tokens, and the context 8192"}
    assert "long: the prompt has 9000 tokens" in result.stdout
    assert list((tmp_path / "run/eval/wandb").glob("offline-run-*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, r1zero) -> Path:
    """A run of one step on two ranks with ZeRO-3, evaluated also on the built-in benchmark."""
    folder = tmp_path_factory.mktemp("trained")
    result = r1zero(
        *("train", "experiment=smoke", "steps=1", "run.dir=run", "logger=none", "cluster.ranks=2"),
        *("cluster.zero_stage=3", "benchmark=make_zero", "optimizer.lr=1e-3"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_the_evaluation_during_training_equals_that_of_eval(trained, r1zero):
    (last,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()][1:]
    result = r1zero("eval", "checkpoint=run", "run.dir=run", "logger=none", cwd=trained.parent)
    assert result.returncode == 0, result.stderr
    found = metrics(trained)
    assert found["num_problems"] == 366
    assert {key: last[f"eval/make_zero/{key}"] for key in ("avg", "avg_se", "length", "well_formed")} == {
        key: found[key] for key in ("avg", "avg_se", "length", "well_formed")
    }
    assert results(trained)["model"]["checkpoint"] == "run"


def test_a_sharded_checkpoint_gives_the_model_that_was_trained(trained):
    from grpo_cli.training.export import model_folder

    ours = load_file(model_folder(trained / "checkpoints/step_000001") / "model.safetensors")
    theirs = load_file(trained / "model/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_base_model_is_analyzed_under_several_templates(tmp_path, r1zero):
    result = r1zero(
        *("analyze", "template=[make_zero,none]", "analyze.num_problems=40", "eval.n=8", "logger=none"),
        *("run.dir=run", "analyze.group_sizes=[4,8]"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "of the prompts would teach at G=4; with G=8," in result.stdout
    found = json.loads((tmp_path / "run/analyze.json").read_text())["templates"]
    assert found["make_zero"]["answering"] > 0.8
    assert 0 < found["make_zero"]["mixed@4"] < found["make_zero"]["mixed@8"]
    rates = [json.loads(line) for line in (tmp_path / "run/pass_rates_make_zero.jsonl").read_text().splitlines()]
    assert len(rates) == 40
    assert sum(rate["pass_rate"] for rate in rates) / 40 == pytest.approx(found["make_zero"]["avg"])
    assert (tmp_path / "run/analyze.png").stat().st_size > 1000


@pytest.fixture
def yes_model(tmp_path) -> Path:
    """A model that always replies `yes`: each letter determines the next."""
    folder = tmp_path / "yes_model"
    build_base(folder)
    network = LlamaForCausalLM(LlamaConfig.from_pretrained(folder, tie_word_embeddings=False))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.model.norm.weight.fill_(1)
        chain = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids([*":yes", END])
        for place, (letter, following) in enumerate(pairwise(chain)):
            network.model.embed_tokens.weight[letter, place] = 1
            network.lm_head.weight[following, place] = 1
    network.save_pretrained(folder)
    return folder


def test_ranks_share_the_work_of_a_judging_model(yes_model, tmp_path, r1zero):
    judged = (
        *("analyze", f"analyze.judge={yes_model}", "cluster.ranks=2", "analyze.num_problems=5", "eval.n=3"),
        *("analyze.group_sizes=[2]", "logger=none", "run.dir=run"),
    )
    result = r1zero(*judged, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = tmp_path / "run/analyze.json"
    found = json.loads(report.read_text())
    assert found["templates"]["default"]["num_samples"] == 15
    assert found["templates"]["default"]["answering"] == 1

    report.unlink()  # as if the run was killed before the report
    again = r1zero(*judged, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 samples, 15 kept" in again.stdout
    assert json.loads(report.read_text()) == found
