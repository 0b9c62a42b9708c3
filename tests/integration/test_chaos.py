"""Runs that are killed at random moments and started again end as an undisturbed one: `make chaos` does twenty."""

import hashlib
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

CHAOS = Path(__file__).parents[1] / "chaos"
STEPS = 30
# One thread a rank: how a sum is split over threads is part of its rounding.
COMMAND = (
    *("train", "experiment=smoke", "logger=wandb", "resume=auto", "run.dir=run", "cluster.threads=1", f"steps={STEPS}"),
    *("checkpoint.every_steps=4", "eval.every_steps=5", "logger.samples_every=3", "optimizer.lr=1e-3"),
    *("algorithm.beta=0.04", "algorithm.reference.refresh_steps=7", "algorithm.dynamic_sampling.max_refills=1"),
)
# How often a phase comes in a run, and the longest that is waited in it.
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


def start(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [Path(sys.executable).parent / "r1zero", *COMMAND],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "WANDB_MODE": "offline", **environment},
        timeout=600,
    )


def kill(rng: random.Random, folder: Path) -> dict[str, str]:
    """One death, as tests/chaos/sitecustomize.py takes it."""
    phase = rng.choice(list(VISITS))
    visits, longest_s = VISITS[phase]
    return {
        "PYTHONPATH": os.pathsep.join([str(CHAOS), os.environ.get("PYTHONPATH", "")]),
        "CHAOS_PHASE": phase,
        "CHAOS_VISITS": str(rng.randint(0, visits)),
        "CHAOS_DELAY_S": str(rng.uniform(0, longest_s)),
        "CHAOS_VICTIM": rng.choice(["rank", "launcher"]),
        "CHAOS_LOG": str(folder / "deaths.txt"),
    }


def outcome(run_dir: Path) -> dict:
    """What must not depend on the deaths: the weights, the metrics but for times, the steps that W&B holds."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest(),
        "metrics": [
            json.dumps({key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))})
            for row in rows
        ],
        "samples": {file.name: file.read_text() for file in (run_dir / "samples").iterdir()},
        "wandb": sorted(step for folder in (run_dir / "wandb").glob("offline-run-*") for step in wandb_steps(folder)),
    }


def wandb_steps(folder: Path) -> list[int]:
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
    records = map(json.loads, subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())
    return [record["history"]["item"]["step"] for record in records if record["type"] == "history"]


def survive(folder: Path, seed: int) -> tuple[list[str], dict]:
    """A run that dies up to three times; where it did, and its outcome."""
    rng = random.Random(seed)
    folder.mkdir()
    for _ in range(rng.randint(1, 3)):
        start(folder, kill(rng, folder))
        assert not [
            process
            for process in psutil.process_iter(["cmdline", "cwd", "status"])
            if process.info["cwd"] == str(folder)
            and "grpo_cli.launch.worker" in (process.info["cmdline"] or [])
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]
    ended = start(folder, {})
    assert ended.returncode == 0, ended.stderr
    deaths = folder / "deaths.txt"
    return deaths.read_text().splitlines() if deaths.exists() else [], outcome(folder / "run")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = start(folder, {})
    assert ended.returncode == 0, ended.stderr
    return outcome(folder / "run")


def test_a_run_that_dies_and_goes_on_ends_as_one_that_never_died(tmp_path, undisturbed, pytestconfig, capsys):
    assert undisturbed["wandb"] == list(range(STEPS + 1))
    num_runs = pytestconfig.getoption("--chaos-runs")
    with ThreadPoolExecutor(max_workers=2) as pool:
        seeds = range(num_runs)
        for seed, (deaths, seen) in zip(seeds, pool.map(lambda s: survive(tmp_path / f"{s}", s), seeds), strict=True):
            with capsys.disabled():
                print(f"\nrun {seed}: {'; '.join(deaths) or 'no death'}", end="", flush=True)
            for what, value in undisturbed.items():
                assert seen[what] == value, f"run {seed}: other {what}"


def test_the_same_command_twice_gives_the_same_bytes(tmp_path, undisturbed):
    ended = start(tmp_path, {})
    assert ended.returncode == 0, ended.stderr
    assert outcome(tmp_path / "run") == undisturbed
