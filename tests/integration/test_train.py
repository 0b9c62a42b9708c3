"""`r1zero train` as a user starts it: what it writes, how it resumes and how it stops."""

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from grpo_cli.errors import TrainingError
from grpo_cli.runs.rollouts import Split, kept_steps, read_groups

BIN = Path(sys.executable).parent


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))}


LOGGED = ("logger.samples_every=1", "logger.token_values=true", "logger.replayable=true")


@pytest.fixture(scope="module")
def run(tmp_path_factory, r1zero) -> tuple[Path, str]:
    """The folder of a run of two steps, and its output."""
    folder = tmp_path_factory.mktemp("train")
    result = r1zero("train", "experiment=smoke", "run.dir=run", *LOGGED, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run", result.stdout


def test_every_step_has_a_row_with_its_metrics(run):
    written = rows(run[0])
    assert [row["step"] for row in written] == [0, 1, 2]
    assert written[0].keys() >= {"eval/heldout/avg", "eval/heldout/greedy"}
    assert written[2].keys() >= {"eval/heldout/avg", "eval/heldout/greedy"}
    for row in written[1:]:
        assert row.keys() >= {
            *(
                "reward/mean",
                "reward_term/accuracy/mean",
                "reward_term/format/mean",
                "length/mean",
                "length/max",
                "length/truncated",
            ),
            *("group/all_right", "group/all_wrong", "group/agreeing", "reflection/wait_rate"),
            *(
                "policy/loss",
                "policy/entropy",
                "policy/clip_low",
                "policy/clip_high",
                "policy/grad_norm",
                "policy/lr",
            ),
            *("sampler/logprob_diff_mean", "sampler/logprob_diff_max", "perf/tokens_per_s", "time/step"),
            *("time/rollout", "time/reward", "time/update", "time/sync"),
            *("perf/generation_tokens_per_s", "perf/training_tokens_per_s", "perf/trained_tokens"),
        }
        assert row["sampler/logprob_diff_max"] <= 1e-3
        assert row["perf/peak_memory_gib"] > 0.1
        assert not row.keys() & {"perf/mfu", "perf/trained_squares", "perf/trained_responses"}


def test_docs_metrics_md_explains_every_metric_of_a_run(run):
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    names = [re.sub(r"<\w+>", r"\\w+", name) for name in re.findall(r"`([\w./@<>]+)`", page)]  # <term> is any word
    explained = re.compile("|".join(names))
    seen = {re.sub("^eval/heldout/", "", name) for row in rows(run[0]) for name in row} - {"step"}
    assert len(seen) > 80
    assert {name for name in seen if not explained.fullmatch(name)} == set()


def test_progress_metrics_add_up(run):
    written = rows(run[0])[1:]
    assert written[-1]["total/samples"] == sum(row["rollout/samples"] for row in written)
    assert written[-1]["total/tokens"] == sum(row["rollout/tokens"] for row in written)
    assert written[-1]["epoch"] > written[0]["epoch"] > 0
    assert all(row["advantage/min"] <= row["advantage/mean"] <= row["advantage/max"] for row in written)


def test_the_output_shows_each_stage_of_the_start_with_its_time(run):
    for stage in ("loading libraries", "loading tiny and make_zero", "starting vLLM", "building DeepSpeed"):
        assert re.search(rf"^{stage}: \d+\.\d s$", run[1], re.MULTILINE), stage
    assert "\nevaluating before training\n" in run[1]


def test_the_metrics_that_keep_best_accepts_exist(run, compose_train):
    evaluated = rows(run[0])[0].keys()
    assert set(compose_train("experiment=smoke").evaluation_metrics()) <= evaluated


def test_the_output_shows_the_accuracy_and_how_to_resume(run):
    assert "held-out accuracy greedy:" in run[1]
    assert "r1zero train resume=run steps=4" in run[1]
    assert (run[0] / "learning_curve.png").stat().st_size > 1000
    assert '"state": "finished"' in (run[0] / "report.html").read_text()


def test_whole_groups_are_kept_of_each_step_and_each_evaluation(run):
    assert [kept_steps(run[0], split) for split in (Split.train, Split.heldout)] == [[1, 2], [0, 2]]
    trained = list(read_groups(run[0], Split.train))
    assert [len(group.responses) for group in trained] == [4] * 4 * 2
    metrics = rows(run[0])[1:]
    for step, row in enumerate(metrics, start=1):  # the smoke run has fewer prompts than are kept
        responses = [response for group in trained if group.step == step for response in group.responses]
        assert fmean(r.reward for r in responses) == pytest.approx(row["reward/mean"])
        assert fmean(r.tokens for r in responses) == pytest.approx(row["length/mean"])
        assert fmean(r.correct for r in responses) == pytest.approx(row["verify/correct"])
        assert max(abs(sum(r.advantage for r in group.responses)) for group in trained) < 1e-9
    before, after = ([group for group in read_groups(run[0], Split.heldout) if group.step == s] for s in (0, 2))
    assert [group.problem for group in before] == [group.problem for group in after]
    assert len(before) == 16
    assert fmean(group.responses[0].correct for group in before) == pytest.approx(
        rows(run[0])[0]["eval/heldout/greedy"]
    )
    for response in (group.responses[0] for group in trained):
        values = response.values
        assert len(values.token_texts) == len(values.entropies) == response.tokens
        assert values.trainer_logprobs == pytest.approx(values.sampler_logprobs, abs=1e-3)
        assert min(values.entropies) >= 0
    moved = [r for group in trained for r in group.responses if r.values.updated_logprobs != r.values.trainer_logprobs]
    assert moved  # the weights after the update are others


def test_wandb_has_every_step_once_and_in_order(run):
    (offline,) = (run[0] / "wandb").glob("offline-run-*")
    inspected = subprocess.run(
        [BIN / "wandb", "leet", "inspect", "--json", offline], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["step"] for row in history] == [0, 1, 2]
    assert all("samples.path" in row for row in history[1:])
    assert len(list(offline.glob("files/media/table/**/*.json"))) == 2


def test_the_final_model_answers_in_vllm_and_in_transformers(run, new_engine, model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from grpo_cli.config.model import ModelConfig
    from grpo_cli.model import load_base_model
    from grpo_cli.types import Request, Sampling

    folder = run[0] / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == model.tokenizer.get_vocab()
    prompt = tokenizer("13 5 6 2 :", return_tensors="pt")
    network = AutoModelForCausalLM.from_pretrained(folder)
    greedy = network.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt.input_ids.shape[1] :].tolist()
    exported = load_base_model(ModelConfig(name="run", path=str(folder)), needed_len=80)
    ((_, completion),) = new_engine(exported).generate(
        [Request(tuple(prompt.input_ids[0].tolist()), seed=0)], Sampling(0.0, 1.0, max_new_tokens=20)
    )
    assert list(completion.token_ids) == greedy


def test_a_resumed_run_gives_the_same_metrics_as_one_that_never_stopped(run, tmp_path, r1zero):
    starts = [
        ("experiment=smoke", "steps=1", "run.dir=part", "resume=auto", *LOGGED),  # there is nothing to resume
        ("resume=part", "steps=2"),
    ]
    for start in starts:
        part = r1zero("train", *start, cwd=tmp_path)
        assert part.returncode == 0, part.stderr
    assert "resume=part steps=4" in part.stdout
    whole_rows, part_rows = rows(run[0]), rows(tmp_path / "part")
    # Step 1 was the last step of a start, which is evaluated.
    part_rows[1] = {key: value for key, value in part_rows[1].items() if not key.startswith("eval/")}
    assert [without_times(row) for row in part_rows] == [without_times(row) for row in whole_rows]
    whole_groups, part_groups = (
        {file.name: file.read_bytes() for file in (folder / "rollouts").iterdir()}
        for folder in (run[0], tmp_path / "part")
    )
    del part_groups["heldout_000001.jsonl.gz"]
    assert part_groups == whole_groups
    assert len(whole_groups) == 6  # two steps, twice, and the evaluations before and after


def test_a_replay_gives_the_weights_of_the_run_and_other_objectives_the_same_data(
    run, compose_train, rollout_engine, tmp_path, monkeypatch
):
    from grpo_cli.training import grpo

    monkeypatch.setattr(grpo, "RolloutEngine", lambda *_, **__: rollout_engine)

    def replay(name: str, *settings: str) -> list[dict]:
        """The metrics of training on the stored steps, without those of evaluations."""
        config = compose_train("experiment=smoke", "logger=none", f"replay={run[0]}", f"run.dir={name}", *settings)
        Path(name).mkdir(exist_ok=True)
        grpo.train(config, io.StringIO())
        return trained(Path(name))

    def trained(run_dir: Path) -> list[dict]:
        return [{k: v for k, v in without_times(row).items() if not k.startswith("eval/")} for row in rows(run_dir)[1:]]

    def weights(run_dir: Path) -> str:
        return hashlib.sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest()

    monkeypatch.chdir(tmp_path)
    replay("same", "steps=1")
    assert replay("same") == trained(run[0])  # the second step after a resume
    assert weights(Path("same")) == weights(run[0])
    other = replay("other", "seed=1", "algorithm=dr_grpo", "algorithm.num_minibatches=2", "optimizer.lr=1e-2")
    assert weights(Path("other")) != weights(run[0])
    for mine, theirs in zip(other, trained(run[0]), strict=True):
        same = [name for name in mine if name.startswith(("reward", "length/", "rollout/", "group/", "verify/"))]
        assert [mine[name] for name in same] == [theirs[name] for name in same]
    assert other[0]["sampler/logprob_diff_mean"] < 1e-4 < other[1]["sampler/logprob_diff_mean"]


def test_a_skipped_weight_sync_stops_the_run(compose_train, rollout_engine, tmp_path, monkeypatch):
    from grpo_cli.training import grpo

    config = compose_train("logger=none", "steps=5", "data.num_heldout=4", "optimizer.lr=1e-2", f"run.dir={tmp_path}")
    calls = []

    def sync_except_once(policy, engine):
        calls.append(1)
        return 0 if len(calls) == 3 else sync_weights(policy, engine)  # the third follows step 2

    sync_weights = grpo.sync_weights
    monkeypatch.setattr(grpo, "RolloutEngine", lambda *_, **__: rollout_engine)
    monkeypatch.setattr(grpo, "sync_weights", sync_except_once)
    with pytest.raises(TrainingError, match="the last weight sync did not reach vLLM"):
        grpo.train(config, io.StringIO())
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3]


def test_a_fault_in_the_data_is_reported_without_a_traceback(tmp_path, r1zero):
    (tmp_path / "train.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n' * 8)
    result = r1zero("train", "data=file", "data.path=train.jsonl", "run.dir=run", "logger=none", cwd=tmp_path)
    assert result.returncode == 1
    assert "each of the 8 has the same text as a held-out one" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_gold_that_cannot_be_graded_is_reported_with_its_row(tmp_path, r1zero):
    rows_ = [{"id": str(n), "problem": f"{n + 3} 1 1 1", "answer": f"{n + 3} 1 1 1 = {n}"} for n in range(8)]
    rows_[3]["answer"] = "thirteen"
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    result = r1zero(
        *("train", "data=file", "data.path=train.jsonl", "data.grader=expression", "data.num_heldout=2"),
        *("data.on_bad_gold=error", "run.dir=run", "logger=none"),
        cwd=tmp_path,
    )
    assert result.returncode == 1
    assert "3: the answer 'thirteen' cannot be graded" in result.stderr
    assert "data.on_bad_gold=drop" in result.stderr


def test_evaluating_does_not_change_training(compose_train, rollout_engine, tmp_path, monkeypatch):
    from grpo_cli.training import grpo

    monkeypatch.setattr(grpo, "RolloutEngine", lambda *_, **__: rollout_engine)
    rewards = []
    for name, settings in (
        ("without", ["eval.every_steps=0"]),
        ("with", ["eval.every_steps=1", "benchmark=make_zero"]),
    ):
        config = compose_train("logger=none", "experiment=smoke", *settings, f"run.dir={tmp_path / name}")
        Path(config.run.dir).mkdir()
        grpo.train(config, io.StringIO())
        rewards.append([row["reward/mean"] for row in rows(tmp_path / name)[1:]])
    assert rewards[0] == rewards[1]
    assert "eval/make_zero/avg" in rows(tmp_path / "with")[1]
