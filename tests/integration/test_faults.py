"""Faults from outside: each is reported in plain words or survived. For what unit tests cannot show."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import astuple

import pytest
import torch

from grpo_cli.choices import Weighting
from grpo_cli.config.model import ModelConfig
from grpo_cli.data.make_zero import base_model_dir
from grpo_cli.errors import ConfigError
from grpo_cli.metrics.metrics import rollout_tally
from grpo_cli.model import load_base_model
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.batch import make_minibatches
from grpo_cli.training.policies import rl_policy
from grpo_cli.types import Completion, Problem, Prompt, ScoredGroup, Verdict

PROMPT = (23, 15, 16, 12, 6)


# ------------------------------------------------------------ the Hub

LOAD = {
    "data": "from grpo_cli.config.data import DataConfig; from grpo_cli.data.problems import load_problem_set; "
    "load_problem_set(DataConfig(name='sums', source='me/it'), 0)",
    "model": "from grpo_cli.config.model import ModelConfig; from grpo_cli.model import load_base_model; "
    "load_base_model(ModelConfig(name='it', path='me/it'))",
}


@pytest.mark.parametrize("what", LOAD)
def test_a_hub_that_never_answers_is_given_up(what, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", LOAD[what]],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
            timeout=90,  # otherwise it would retry for minutes
        )
    assert "grpo_cli.errors.SetupError" in done.stderr
    assert {"data": "data.path=<file>", "model": "set model.path to a folder"}[what] in done.stderr


# ------------------------------------------------------------ model folders


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", cut_short, "model.safetensors is missing or cut short"),
        ("model.safetensors", os.unlink, "holds no weights"),
        ("tokenizer.json", cut_short, "config.json and the tokenizer"),
        ("tokenizer.json", os.unlink, "config.json and the tokenizer"),
        ("config.json", cut_short, "config.json and the tokenizer"),
        ("config.json", os.unlink, "config.json and the tokenizer"),
    ],
)
def test_a_damaged_model_folder_is_rejected_with_the_fix(tmp_path, name, damage, message):
    folder = shutil.copytree(base_model_dir(), tmp_path / "model")
    damage(folder / name)
    with pytest.raises(ConfigError, match=message) as error:
        load_base_model(ModelConfig(name="damaged", path=str(folder)))
    assert f"model.path={folder}" in str(error.value)


def test_a_missing_part_of_the_weights_is_named(tmp_path):
    folder = shutil.copytree(base_model_dir(), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weight_map = '{"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}'
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {weight_map}}}')
    with pytest.raises(ConfigError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_base_model(ModelConfig(name="damaged", path=str(folder)))


# ------------------------------------------------------------ empty and almost empty responses


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("weighting", Weighting)
def test_responses_with_only_an_end_token_or_no_token_are_scored_and_trained_on(
    weighting, compose_train, model, config, tmp_path
):
    composed = compose_train()
    end = (model.tokenizer.eos_token_id,)
    completions = tuple(
        Completion(ids, (-0.5,) * len(ids), "", truncated=not ids) for ids in (end, (), (*end * 2,), (40, *end))
    )
    prompt = Prompt(Problem("1", "13 5 6 2", "13 5 6 2 = 0", "expression"), "13 5 6 2 :", PROMPT)
    with Reward(composed.reward, composed.template, 64, composed.cluster.device) as reward:
        scores = tuple(reward.submit(prompt.problem, completion).result() for completion in completions)
    assert all(score.verdict is Verdict.unparsable for score in scores)
    group = ScoredGroup(prompt, completions, scores)
    metrics = rollout_tally([group]).compute()
    assert metrics["length/mean"] == 5 / 4
    config.algorithm.weighting = weighting
    minibatches = make_minibatches(
        Rollout((group,), (0,), (), 0.0, 0.0),
        torch.tensor([[1.0, -1.0, 0.5, -0.5]]),
        torch.ones(1, 4, dtype=torch.bool),
        config.algorithm,
        max_new_tokens=64,
    )
    assert all(0 <= sequence.weight <= 1 for sequence in minibatches[0]), [astuple(s) for s in minibatches[0]]
    update = rl_policy(model, config).update(minibatches).compute()
    assert update["policy/grad_norm"] > 0
    assert update["policy/skipped_steps"] == 0


# ------------------------------------------------------------ data, through the command


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Give a data set with at least one problem"),
        (b"\n \n\n", "is empty. Give a data set with at least one problem"),
        (bytes(1000), "p.jsonl, line 1 is not JSON"),
        (b'{"problem": "1", "answer": "1"}\n{"problem": "2", "an', "p.jsonl, line 2 is not JSON"),
    ],
    ids=["nothing", "blank lines", "NUL bytes", "cut short"],
)
def test_unreadable_data_is_reported_without_a_traceback(tmp_path, r1zero, content, message):
    (tmp_path / "p.jsonl").write_bytes(content)
    done = r1zero("train", "data=file", "data.path=p.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
