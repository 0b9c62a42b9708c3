"""Every method in conf/algorithm/ in the whole training loop, with the real vLLM and DeepSpeed."""

import io
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from grpo_cli.config.compose import conf_dir
from grpo_cli.training import grpo

METHODS = sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))
# The published settings are too hard for a model of 0.17 M parameters, or would not use every stage.
SETTINGS = {
    "dapo": ["rollout.top_p=0.9", "rollout.top_k=20"],
    "gspo": ["rollout.top_p=0.9", "algorithm.beta=0.04"],
    "r1_zero": ["rollout.max_new_tokens=128", "rollout.max_new_tokens_schedule={8200:128}", "rollout.group_size=4"],
    "reinforce_pp": ["algorithm.beta=0.05"],
    "on_policy_distillation": ["algorithm.reference.path=builtin:make_zero_half"],
}


@pytest.fixture
def train(compose_train, rollout_engine, monkeypatch, tmp_path):
    """Run the loop in this process with the shared engine. Returns the rows of its metrics."""
    monkeypatch.setattr(grpo, "RolloutEngine", lambda *_, **__: rollout_engine)

    def run(*overrides: str) -> list[dict]:
        config = compose_train("logger=none", f"run.dir={tmp_path}", *overrides)
        grpo.train(config, io.StringIO())
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    return run


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_three_steps_of_a_method_change_the_weights(method, train, model, tmp_path):
    rows = train(
        f"algorithm={method}",
        *SETTINGS.get(method, []),
        *("steps=3", "rollout.prompts_per_step=8", "algorithm.num_minibatches=2", "data.num_heldout=4"),
        *("optimizer.lr=1e-4", "reward.terms.accuracy.weight=1"),
    )
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows[1:]:
        assert row["sampler/logprob_diff_max"] < 1e-3
        assert row["sampler/logprob_diff_mean"] < 1e-5
        assert row["policy/skipped_steps"] == 0
    before, after = weights(model.folder), weights(tmp_path / "model")
    assert all((before[name] != after[name]).any() for name in after)


@pytest.mark.parametrize("method", ["grpo", "dr_grpo"])
def test_the_published_methods_raise_the_quickstarts_accuracy(method, train):
    steps = ("steps=16", "eval.every_steps=16", "data.num_heldout=128", "optimizer.lr=3e-4")
    rows = train(f"algorithm={method}", *steps)
    assert rows[-1]["eval/heldout/avg"] > rows[0]["eval/heldout/avg"] + 0.2


def test_without_any_advantage_sampler_and_trainer_are_still_compared(train):
    # All rewards are equal, so no group has an advantage.
    rows = train(
        "steps=2",
        "rollout.prompts_per_step=4",
        "data.num_heldout=4",
        "~reward.terms.accuracy",
        "reward.terms.format.weight=0",
    )
    for row in rows[1:]:
        assert row["group/agreeing"] == 1
        assert row["sampler/logprob_diff_max"] < 1e-3
        assert row["policy/grad_norm"] == 0
