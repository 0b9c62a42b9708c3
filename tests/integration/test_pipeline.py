"""`r1zero pipeline` with real runs: R1's stages, killed in one of each kind, end with the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STAGES = ("cold_start", "rl", "sample", "sft", "reward_model", "rl_all")
KILLED = ("rl", "sample", "sft", "reward_model")  # one of each kind
SAVED = "checkpoint.every_steps=1"
RL = [
    *("rollout.prompts_per_step=4", "rollout.group_size=4", "rollout.max_new_tokens=48"),
    *("data.num_heldout=8", "steps=3", SAVED),
]
SMALL = {
    "cold_start": ["epochs=0.3", "data.num_heldout=8", SAVED],
    "rl": RL,
    "sample": ["sample.num_problems=48", "sample.n=8", "sample.keep=[correct]", "sample.language=null"],
    "sft": ["epochs=0.3", "data.num_heldout=2", SAVED],
    "reward_model": ["epochs=2", "batch_size=4", "data.num_heldout=2", SAVED],
    "rl_all": [*RL, "reward.terms.model.from_step=2"],
}
COMMAND = [
    *(str(Path(sys.executable).parent / "r1zero"), "pipeline", "pipeline=r1", "logger=none", "evaluate=null"),
    *(f"{stage}.{setting}" for stage, settings in SMALL.items() for setting in settings),
]


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, f"run.dir={folder}"], cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(folder: Path) -> str:
    process = start(folder)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return output


def progress(folder: Path) -> dict[str, bool]:
    """Whether each started stage is done."""
    try:
        saved = json.loads((folder / "pipeline.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: entry["done"] for name, entry in saved.items()}


def has_something_to_lose(stage: Path) -> bool:
    return any(stage.glob("checkpoints/step_*[0-9]")) or any(f.stat().st_size for f in stage.glob("sample/*.part"))


def kill_in(folder: Path, stage: str) -> None:
    """Start the pipeline and kill it in the middle of a stage, together with all its processes."""
    process = start(folder)
    while not (progress(folder).get(stage) is False and has_something_to_lose(folder / stage)):
        assert process.poll() is None, process.stdout.read()
        assert not progress(folder).get(stage), f"{stage} was done too soon"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert progress(folder)[stage] is False


def metrics(stage: Path) -> list[dict]:
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/"))} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, r1zero) -> Path:
    os.environ["WANDB_MODE"] = "offline"
    folder = tmp_path_factory.mktemp("pipeline") / "whole"
    result = r1zero(*COMMAND[1:], f"run.dir={folder}", cwd=folder.parent, timeout=500)
    assert result.returncode == 0, result.stderr
    assert all(f"| {stage} " in result.stdout for stage in STAGES)
    return folder


def test_every_stage_is_done(uninterrupted):
    assert progress(uninterrupted) == dict.fromkeys(STAGES, True)


def test_the_reward_model_scores_the_general_prompts_from_its_step_on(uninterrupted):
    rows = metrics(uninterrupted / "rl_all")[1:]
    scored = [row["step"] for row in rows if "reward_term/model/mean" in row]
    assert scored == [row["step"] for row in rows if row["step"] >= 2 and row["group/general"] > 0] != []


def test_a_pipeline_killed_in_each_kind_of_stage_ends_with_the_same_result(uninterrupted):
    folder = uninterrupted.parent / "killed"
    for stage in KILLED:
        kill_in(folder, stage)
    finish(folder)
    for stage in STAGES:
        if stage == "sample":
            for name in ("traces.jsonl", "pairs.jsonl"):
                traces = (folder / stage / name).read_text()
                assert traces.replace(str(folder), str(uninterrupted)) == (uninterrupted / stage / name).read_text()
            continue
        assert metrics(folder / stage) == metrics(uninterrupted / stage)
        weights = f"{stage}/model/model.safetensors"
        assert (folder / weights).read_bytes() == (uninterrupted / weights).read_bytes()
