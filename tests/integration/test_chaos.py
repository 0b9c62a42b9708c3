"""Runs that are killed at random moments and resumed end like an undisturbed run; `make chaos` tests twenty runs."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

CHAOS = Path(__file__).parents[1] / "chaos"
STEPS = 30
# One thread per rank: the way in which a sum is split over threads changes its rounding.
COMMAND = (
    *("train", "experiment=smoke", "logger=wandb", "resume=auto", "run.dir=run", "cluster.threads=1", f"steps={STEPS}"),
    *("checkpoint.every_steps=4", "eval.every_steps=5", "logger.groups_per_step=2", "optimizer.lr=1e-3"),
    *("algorithm.beta=0.04", "algorithm.reference.refresh_steps=7", "algorithm.dynamic_sampling.max_refills=1"),
)
CLUSTERS = {
    "colocated": (),
    # Generates a step ahead while it trains, and continues long responses in the next step.
    "split": (
        *("cluster=cpu_split", "rollout.max_staleness=2", "rollout.oversample=4"),
        "algorithm.dynamic_sampling.max_refills=0",
    ),
}
# For each phase: the largest number of its occurrences to skip before the kill, and the longest delay in it in seconds.
VISITS = {
    "start-up": (0, 20.0),
    "generation": (12, 0.2),
    "update": (12, 0.2),
    "sync": (12, 0.02),
    "checkpoint": (3, 0.05),
    "dropping": (3, 0.01),
    "evaluation": (3, 0.1),
    "logging": (12, 0.005),
    "export": (0, 0.1),
}
SERVING = {"serving": (24, 0.2), "receiving": (12, 0.02)}  # of a rank that only generates


def start(folder: Path, command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [Path(sys.executable).parent / "r1zero", *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "WANDB_MODE": "offline", **environment},
        timeout=600,
    )


def kill(rng: random.Random, folder: Path, phases: Mapping[str, tuple[int, float]]) -> dict[str, str]:
    """The environment for one random kill, which tests/chaos/sitecustomize.py reads."""
    phase = rng.choice(list(phases))
    visits, longest_s = phases[phase]
    return {
        "PYTHONPATH": os.pathsep.join([str(CHAOS), os.environ.get("PYTHONPATH", "")]),
        "CHAOS_PHASE": phase,
        "CHAOS_VISITS": str(rng.randint(0, visits)),
        "CHAOS_DELAY_S": str(rng.uniform(0, longest_s)),
        "CHAOS_VICTIM": rng.choice(["rank", "launcher"]),
        "CHAOS_LOG": str(folder / "kills.txt"),
    }


def outcome(run_dir: Path) -> dict:
    """What kills must not change: weights, metrics except times, kept groups and the steps in W&B's files."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest(),
        "metrics": [
            json.dumps({key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))})
            for row in rows
        ],
        "rollouts": {file.name: file.read_bytes() for file in (run_dir / "rollouts").iterdir()},
        "wandb": sorted(step for folder in (run_dir / "wandb").glob("offline-run-*") for step in wandb_steps(folder)),
    }


def wandb_steps(folder: Path) -> list[int]:
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
    records = map(json.loads, subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())
    return [record["history"]["item"]["step"] for record in records if record["type"] == "history"]


def killed_and_resumed(folder: Path, cluster: str, seed: int, r1zero) -> tuple[list[str], dict]:
    """A run that is killed up to three times. Returns where it was killed, and its outcome."""
    rng = random.Random(seed)
    folder.mkdir()
    command = (*COMMAND, *CLUSTERS[cluster])
    for _ in range(rng.randint(1, 3)):
        start(folder, command, kill(rng, folder, VISITS | SERVING if cluster == "split" else VISITS))
        assert not [
            process
            for process in psutil.process_iter(["cmdline", "cwd", "status"])
            if process.info["cwd"] == str(folder)
            and "grpo_cli.launch.worker" in (process.info["cmdline"] or [])
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]
    finished = r1zero(*command, cwd=folder)
    assert finished.returncode == 0, finished.stderr
    kills = folder / "kills.txt"
    return kills.read_text().splitlines() if kills.exists() else [], outcome(folder / "run")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_run_that_is_killed_and_resumed_ends_like_an_undisturbed_one(cluster, tmp_path, r1zero, pytestconfig, capsys):
    (tmp_path / "undisturbed").mkdir()
    finished = r1zero(*COMMAND, *CLUSTERS[cluster], cwd=tmp_path / "undisturbed")
    assert finished.returncode == 0, finished.stderr
    undisturbed = outcome(tmp_path / "undisturbed/run")
    assert undisturbed["wandb"] == list(range(STEPS + 1))
    assert len(undisturbed["rollouts"]) == STEPS + STEPS // 5 + 1
    seeds = range(pytestconfig.getoption("--chaos-runs"))
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = pool.map(lambda seed: killed_and_resumed(tmp_path / f"{seed}", cluster, seed, r1zero), seeds)
        for seed, (kills, seen) in zip(seeds, results, strict=True):
            with capsys.disabled():
                print(f"\n{cluster}, run {seed}: {'; '.join(kills) or 'not killed'}", end="", flush=True)
            for what, value in undisturbed.items():
                assert seen[what] == value, f"run {seed}: different {what}"
