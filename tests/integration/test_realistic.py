"""The commands with realistic data: a real tokenizer and its whole vocabulary, long prompts, and responses of different
lengths.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from realistic import tokenizer_files, write_demonstrations, write_problems, write_realistic_model

from grpo_cli.config.train import TrainConfig

# Of responses. With a vocabulary of 150,000, two cores sample and train on about 500 tokens per second.
MEAN_LEN = {"trained": 100, "qwen3": 15, "deepseek_v3": 12}
TRAIN = (
    *("train", "model=file", "data=file", "data.path=problems.jsonl", "data.num_heldout=16", "optimizer.lr=1e-4"),
    *("rollout.prompts_per_step=32", "rollout.group_size=8", "rollout.max_new_tokens=256", "eval.max_new_tokens=256"),
    # A random model is never right. With this term, rewards differ, so that there is a gradient.
    *("reward.terms.length_penalty.weight=1", "checkpoint.every_steps=1"),
)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rows(run_dir: Path) -> list[dict]:
    return lines(run_dir / "metrics.jsonl")


def without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with 80 problems, 16 of them held out, and a demonstration for each."""
    home = tmp_path_factory.mktemp("home")
    write_demonstrations(home / "demonstrations.jsonl", write_problems(home / "problems.jsonl", 80))
    return home


@pytest.fixture(scope="module")
def model(home) -> Callable[[str], tuple[str, str]]:
    """A function that returns the settings for a model with a real tokenizer; creates the model if needed."""

    def settings(name: str) -> tuple[str, str]:
        if not (home / name).is_dir():
            write_realistic_model(home / name, name, MEAN_LEN[name])
        return "model=file", f"model.path={name}"

    return settings


@pytest.fixture(scope="module")
def start(home, r1zero) -> Callable[..., str]:
    """A function that runs a command in `home`, checks that it succeeds and returns its output."""

    def run(*arguments: str) -> str:
        quiet = () if arguments[0] == "export" else ("logger=none",)
        result = r1zero(*arguments, *quiet, cwd=home)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def if_there(name: str) -> str:
    """The model with this real tokenizer, or the one with a trained tokenizer if there are no files."""
    return name if tokenizer_files(name).is_dir() else "trained"


def check_metrics(run_dir: Path, steps: int) -> None:
    found = rows(run_dir)
    assert [row["step"] for row in found] == list(range(steps + 1))
    assert all(math.isfinite(value) for row in found for value in row.values())
    for row in found[1:]:
        assert row["sampler/logprob_diff_mean"] < 1e-5
        assert row["sampler/logprob_diff_max"] < 1e-4
        assert row["policy/grad_norm"] > 0
        assert row["length/max"] <= 256


@pytest.fixture(scope="module")
def whole(home, model, start) -> Path:
    """Two steps of GRPO with a reference, 32 prompts x 8, on one rank."""
    start(*TRAIN, *model("trained"), "template=r1", "algorithm.beta=0.04", "steps=2", "run.dir=whole")
    return home / "whole"


def test_training_works_with_long_prompts_and_responses_of_different_lengths(whole):
    check_metrics(whole, steps=2)
    _, first, last = rows(whole)
    assert 0 < first["length/truncated"] < 0.5  # before any update, some are truncated, but most end by themselves
    assert last["policy/kl_ref"] > 0


def test_a_resumed_run_equals_an_uninterrupted_one(whole, home, start):
    shutil.copytree(whole, home / "part")
    for later in ("checkpoints/step_000002", "model"):
        shutil.rmtree(home / "part" / later)
    start("train", "resume=part")
    assert [without_times(row) for row in rows(home / "part")] == [without_times(row) for row in rows(whole)]


def test_the_exported_model_gives_the_trainers_logprobs(whole, home, start, ranks):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from grpo_cli.model import load_base_model
    from grpo_cli.training.batch import TrainingSequence
    from grpo_cli.training.policies import rl_policy

    start("export", "checkpoint=whole", "to=exported")
    tokenizer = AutoTokenizer.from_pretrained(home / "exported")
    network = AutoModelForCausalLM.from_pretrained(home / "exported")
    saved = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(whole / "config.yaml"))
    config: TrainConfig = OmegaConf.to_object(saved)
    config.model.path = str(home / "trained")
    policy = rl_policy(load_base_model(config.model), config)
    policy.load(whole / "checkpoints/step_000002/deepspeed")
    for row in lines(home / "demonstrations.jsonl")[:4]:
        prompt, response = (tuple(tokenizer(row[key])["input_ids"]) for key in ("problem", "response"))
        sequence = TrainingSequence(prompt, response, advantage=1.0)
        (expected,) = policy._token_logprobs(policy._engine, policy._packed([sequence])).values()
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            logprobs = network(ids).logits[0, len(prompt) - 1 : -1, : len(tokenizer)].log_softmax(-1)
        found = logprobs.gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("trained", ("template=qwen_math", "reward=boxed", "algorithm=dr_grpo")),
        ("qwen3", ("template=r1", "algorithm=grpo", "algorithm.beta=0.04")),
        ("deepseek_v3", ("template=chat", "reward=boxed", "algorithm=dr_grpo", "cluster=cpu_2rank")),
    ],
)
def test_every_template_trains_with_a_whole_vocabulary_on_one_rank_and_two(name, settings, model, home, start):
    budget = "cluster.tokens_per_microbatch=16384"  # enough responses that their logits need several chunks
    start(*TRAIN, *model(name), *settings, budget, "steps=1", f"run.dir=train_{name}")
    check_metrics(home / f"train_{name}", steps=1)


def test_demonstrations_are_learned_under_a_chat_template(model, home, start):
    start(
        *("sft", *model("trained"), "template=chat", "data.path=demonstrations.jsonl", "data.num_heldout=16"),
        *("epochs=8", "batch_size=32", "optimizer.lr=1e-2", "cluster=cpu_2rank", "run.dir=sft"),
        *("benchmark=file", "benchmark.file.path=problems.jsonl", "eval.max_new_tokens=64"),
    )
    before, *_, after = rows(home / "sft")
    assert after["eval/heldout/loss"] < before["eval/heldout/loss"] - 1
    assert after["eval/file/num_samples"] == 80


def test_several_samples_of_each_problem_are_evaluated(model, home, start):
    start(
        *("eval", *model(if_there("deepseek_v3")), "template=r1", "cluster=cpu_2rank", "run.dir=eval", "eval.n=4"),
        *("benchmark=file", "benchmark.file.path=problems.jsonl", "eval.temperature=0.7", "eval.max_new_tokens=256"),
    )
    found = json.loads((home / "eval/eval.json").read_text())["benchmarks"]["file"]
    assert (found["num_problems"], found["num_samples"], found["skipped"]) == (80, 320, 0)
    samples = lines(home / "eval/eval/file.jsonl")
    assert Counter(sample["id"] for sample in samples) == {f"p{number}": 4 for number in range(80)}
    text = "".join(sample["text"] for sample in samples)
    assert " " in text
    assert "\u0120" not in text  # how a byte-level vocabulary writes a space


def test_a_random_models_responses_are_sampled_and_kept(model, home, start):
    start(
        *("sample", *model("trained"), "template=r1", "data=file", "data.path=problems.jsonl", "data.num_heldout=16"),
        *("sample.keep=[]", "sample.n=4", "sample.max_new_tokens=256", "run.dir=sample"),
    )
    counts = json.loads((home / "sample/sample.json").read_text())["yield"]
    assert counts["num_samples"] == 256
    assert 0 < counts["kept"] == len(lines(home / "sample/traces.jsonl"))


def test_a_base_model_is_analyzed_under_three_templates(model, home, start):
    start(
        *("analyze", *model(if_there("qwen3")), "template=[r1,qwen_math,chat]", "data=file"),
        *(
            "data.path=problems.jsonl",
            "eval.n=2",
            "analyze.group_sizes=[2]",
            "eval.max_new_tokens=256",
            "run.dir=analyze",
        ),
    )
    found = json.loads((home / "analyze/analyze.json").read_text())["templates"]
    assert {template: metrics["num_samples"] for template, metrics in found.items()} == {
        "r1": 160,
        "qwen_math": 160,
        "chat": 160,
    }
