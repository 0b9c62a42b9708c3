"""`r1zero train resume=...` with other settings, and after a run that diverged."""

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from grpo_cli.errors import DivergedError


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_changed_settings_show_in_the_metrics_of_the_first_step(tmp_path, r1zero):
    start = ("experiment=smoke", "steps=1", "run.dir=run", "optimizer.lr=1e-3", "optimizer.schedule=cosine")
    assert r1zero("train", *start, "logger=none", cwd=tmp_path).returncode == 0
    changes = ("steps=2", "optimizer.lr=1e-5", "~reward.terms.format")
    rejected = r1zero("train", "resume=run", *changes, cwd=tmp_path)
    assert rejected.returncode == 1
    assert "resume.allow=[optimizer.lr,reward.terms.format.weight,steps]" in rejected.stderr
    resumed = r1zero(
        "train", "resume=run", *changes, "resume.allow=[optimizer.lr,reward.terms.format,steps]", cwd=tmp_path
    )
    assert resumed.returncode == 0, resumed.stderr
    first, last = rows(tmp_path / "run")[1:]
    assert (first["policy/lr"], last["policy/lr"]) == (1e-3, 0.5e-5)  # half of the cosine of two steps
    assert "reward_term/format/mean" in first
    assert "reward_term/format/mean" not in last
    for change in ("optimizer.lr=1e-05 (0.001 before)", "steps=2 (1 before)", "reward.terms.format.weight=nothing"):
        assert f"From step 2 on: {change}" in resumed.stdout
    named = r1zero("sft", "resume=run", cwd=tmp_path)
    assert "holds a run of `r1zero train`" in named.stderr
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 0}\n{"step": 1, "rew\n')
    damaged = r1zero("train", "resume=run", "steps=3", "resume.allow=[steps]", cwd=tmp_path)
    assert damaged.returncode == 1
    assert "metrics.jsonl, line 2 is not JSON" in damaged.stderr
    assert "Resuming does not need it: remove the line" in damaged.stderr


def test_a_run_that_diverged_resumes_from_its_last_healthy_checkpoint(
    compose_train, rollout_engine, tmp_path, monkeypatch
):
    from grpo_cli.training import grpo
    from grpo_cli.training.policy import Policy

    update = Policy.update

    def diverging(policy, minibatches):
        """Diverge from the fourth optimizer step on if the learning rate is too high."""
        if policy.lr > 1e-4 and policy._engine.num_steps >= 3:
            minibatches = [[replace(s, advantage=math.nan) for s in minibatch] for minibatch in minibatches]
        return update(policy, minibatches)

    monkeypatch.setattr(grpo, "RolloutEngine", lambda *_, **__: rollout_engine)
    monkeypatch.setattr(Policy, "update", diverging)
    settings = (
        *("experiment=smoke", "logger=none", "steps=7", "eval.every_steps=0", f"run.dir={tmp_path}"),
        *("checkpoint.every_steps=1", "checkpoint.keep_last=1"),
    )
    with pytest.raises(
        DivergedError, match=r"3 optimizer steps in a row. The last healthy .* step_000002\. .*lr=0\.0001"
    ):
        grpo.train(compose_train(*settings, "optimizer.lr=1e-3"), io.StringIO())
    assert [row["policy/skipped_steps"] for row in rows(tmp_path)[1:]] == [0, 0, 0, 1, 1]
    printed = io.StringIO()
    grpo.train(compose_train(*settings, "optimizer.lr=1e-4"), printed)
    assert "The run diverged after step_000003" in printed.getvalue()
    assert "From step 3 on: optimizer.lr=0.0001 (0.001 before)" in printed.getvalue()
    assert [row["policy/lr"] for row in rows(tmp_path)[1:]] == [1e-3] * 2 + [1e-4] * 5
    assert (tmp_path / "model/model.safetensors").is_file()


def test_vllm_loads_a_model_whose_folder_looks_like_a_pattern(new_engine, tmp_path):
    from grpo_cli.config.model import ModelConfig
    from grpo_cli.data.make_zero import base_model_dir
    from grpo_cli.model import load_base_model
    from grpo_cli.types import Request, Sampling

    folder = shutil.copytree(base_model_dir(), tmp_path / "a[1] *")
    engine = new_engine(load_base_model(ModelConfig(name="odd", path=str(folder)), needed_len=80))
    ((_, completion),) = engine.generate([Request((23, 15), seed=0)], Sampling(0.0, 1.0, max_new_tokens=4))
    assert len(completion.token_ids) > 0
