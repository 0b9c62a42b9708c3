"""Files from somebody else run no code, and files that a run writes contain no secrets."""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.model import load_base_model
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.checkpoint import Checkpoints
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.training.signed import check_signed, signed_manifest
from grpo_cli.types import Problem, Prompt

SEQUENCE = TrainingSequence((23, 15), (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)
SECRETS = {
    "HF_TOKEN": "planted-hub-token",
    "SOME_API_KEY": "planted-api-key",
    "MY_TEAM": "planted-team",  # secret because a setting reads it
}


@pytest.fixture
def sampler() -> EpochSampler:
    return EpochSampler([Prompt(Problem("id", "", ""), "", (23, 15))], seed=0)


@pytest.fixture(params=[0, 2, 3])
def learner(request, ranks, config, model, tmp_path) -> Policy:
    """A policy after one step, at each ZeRO stage."""
    config.cluster.zero_stage = request.param
    config.run.dir, config.data.name = str(tmp_path / "run"), "unused"
    policy = rl_policy(model, config)
    policy.update([[SEQUENCE]])
    return policy


@pytest.fixture
def saved(learner, config, sampler) -> Path:
    Checkpoints(config, "train", print).maybe_save(1, learner, sampler, {}, must=True)
    return Path(config.run.dir) / "checkpoints/step_000001"


def load(config, policy, sampler) -> int:
    return Checkpoints(config, "train", print).load_latest(policy, sampler)


def test_a_checkpoint_of_another_account_is_read_only_if_it_is_trusted(
    saved, learner, config, sampler, monkeypatch, tmp_path
):
    assert load(config, learner, sampler) == 1
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody else"))
    with pytest.raises(CheckpointError, match=r"not signed by this account.*run as you.*resume\.trust=true"):
        load(config, learner, sampler)
    config.resume.trust = True
    assert load(config, learner, sampler) == 1


class Malice:
    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self._folder,)


@pytest.mark.parametrize("place", ["deepspeed", "random"])
def test_even_a_trusted_checkpoint_runs_no_code(saved, learner, config, sampler, tmp_path, place):
    made = tmp_path / "made by a pickle"
    for file in (saved / place).iterdir():
        if place == "random":
            file = file.rename(file.with_suffix(".pt"))  # as earlier versions wrote it
        torch.save({"python": Malice(made)}, file)
    config.resume.trust = True
    write_manifest(saved)
    with pytest.raises(CheckpointError, match="cannot be read: UnpicklingError"):
        load(config, learner, sampler)
    assert not made.exists()


def write_manifest(checkpoint: Path) -> None:
    """Write the manifest again, for the files that are there now."""
    (checkpoint / "manifest.json").unlink()
    files = {
        str(path.relative_to(checkpoint)): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in checkpoint.rglob("*")
        if path.is_file()
    }
    (checkpoint / "manifest.json").write_text(signed_manifest(files))


def test_random_states_of_earlier_versions_can_be_read(saved, learner, config, sampler):
    (file,) = (saved / "random").iterdir()
    file.unlink()
    states = {"python": random.getstate(), "numpy": numpy.random.get_state(), "torch": torch.get_rng_state()}
    torch.save(states | {"cuda": None}, file.with_suffix(".pt"))
    write_manifest(saved)
    expected = [random.random(), numpy.random.rand(), torch.rand(1).item()]
    assert load(config, learner, sampler) == 1
    assert [random.random(), numpy.random.rand(), torch.rand(1).item()] == expected


def test_a_file_that_was_added_is_named(saved):
    (saved / "health").write_text("proved")  # later steps write this file
    check_signed(saved, "trust", False)
    (saved / "deepspeed/added_optim_states.pt").write_text("")
    with pytest.raises(CheckpointError, match="such as deepspeed/added_optim_states"):
        check_signed(saved, "trust", False)


def test_a_model_with_its_own_code_is_rejected(tmp_path, config, model):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {
        "model_type": "unheard_of",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config.model.path = str(folder)
    with pytest.raises(ConfigError, match="r1zero never runs code that comes with a model"):
        load_base_model(config.model)
    assert not (tmp_path / "ran").exists()


REWARD = """
import os, sys
def reward(completion, problem):
    assert os.environ["MY_TEAM"] == "planted-team"
    assert sys.stdin.read() == "", "a rank can read what the user types"
    return 0.0
"""


def command(folder: Path, *arguments: str) -> str:
    """Run `r1zero`, which must succeed. Returns its output."""
    r1zero = Path(sys.executable).parent / "r1zero"
    env = os.environ | SECRETS | {"WANDB_MODE": "offline"}
    done = subprocess.run(
        [r1zero, *arguments], cwd=folder, env=env, input="typed\n", capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_writes_no_secrets_and_imports_no_file_of_the_current_folder_as_a_library(tmp_path):
    (tmp_path / "profile.py").write_text("open('ran', 'w')")  # torch imports a module of this name
    (tmp_path / "mine.py").write_text(REWARD)
    small = ("data.num_heldout=1", "eval.every_steps=0", "rollout.prompts_per_step=2", "rollout.group_size=2")
    secret = ("data.name=${oc.env:MY_TEAM}", "model.name=tiny_planted-api-key", "logger.samples_every=1")
    literal = r"template.text='{problem} \${oc.env:HOME}'"
    own = "++reward.terms.mine.function=mine:reward"
    command(tmp_path, "train", "run.dir=run", "steps=1", *small, *secret, literal, own)
    printed = command(tmp_path, "train", "resume=run", "steps=2")
    assert "not signed" not in printed
    command(tmp_path, "export", "checkpoint=run/checkpoints/step_000002", "to=exported")
    assert not (tmp_path / "ran").exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("mine.")]
    assert any(path.suffix == ".wandb" for path in files)
    contents = {str(p.relative_to(tmp_path)): p.read_bytes() for p in files}
    contents |= {name: gzip.decompress(content) for name, content in contents.items() if name.endswith(".gz")}
    assert any("rollouts/train_" in name for name in contents)
    found = {name: s for name, content in contents.items() for s in SECRETS.values() if s.encode() in content}
    assert found == {}
    assert "data:\n" in (settings := (tmp_path / "run/config.yaml").read_text())
    assert "${oc.env:MY_TEAM}" in settings
    assert r"\${oc.env:HOME}" in settings
    rows = (tmp_path / "run/metrics.jsonl").read_text()
    assert "NaN" not in rows
    assert json.loads(rows.split("\n")[0])["eval/heldout/avg_se"] is None  # of one problem
