"""Ranks that only generate, with real engines. What is sampled ahead is tested in test_chaos.py."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parents[1] / "chaos"

# One thread per rank: the way in which a sum is split over threads changes its rounding.
COMMAND = (
    *("train", "experiment=smoke", "steps=3", "logger=none", "cluster=cpu_2rank", "cluster.threads=1"),
    *("optimizer.lr=1e-3", "algorithm.beta=0.04", "algorithm.dynamic_sampling.max_refills=1"),
)


def outcome(run_dir: Path) -> tuple[str, list[dict]]:
    """The hash of the weights, and the metrics except times."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))} for row in rows]
    return hashlib.sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest(), metrics


def test_ranks_that_only_generate_change_no_bit(tmp_path, r1zero):
    for layout, overrides in {"both": (), "split": ("cluster.ranks=3", "cluster.rollout_ranks=1")}.items():
        finished = r1zero(*COMMAND, *overrides, f"run.dir={layout}", cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
    assert outcome(tmp_path / "split") == outcome(tmp_path / "both")
    assert outcome(tmp_path / "split")[1][-1]["sampler/logprob_diff_max"] < 1e-3


def test_engines_that_are_killed_and_started_again_change_no_bit(tmp_path, r1zero):
    command = (*COMMAND, "rollout.max_staleness=1")
    finished = r1zero(*command, "cluster.rollout_ranks=1", "run.dir=undisturbed", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    # One engine is killed while it samples, and one of two while it gets weights.
    for phase, ranks in {"serving": 2, "receiving": 3}.items():
        layout = (f"cluster.ranks={ranks}", f"cluster.rollout_ranks={ranks - 1}", f"run.dir={phase}")
        kill = {"PHASE": phase, "VISITS": "2", "DELAY_S": "0.01", "VICTIM": "rank", "ONCE": "1", "LOG": f"{phase}.txt"}
        killed = subprocess.run(
            [Path(sys.executable).parent / "r1zero", *command, *layout, "rollout.restart_engines=true"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHAOS), os.environ.get("PYTHONPATH", "")])}
            | {f"CHAOS_{name}": value for name, value in kill.items()},
            timeout=400,
        )
        assert killed.returncode == 0, killed.stderr
        assert (tmp_path / f"{phase}.txt").read_text().startswith(phase)
        assert "which generates, was killed by SIGKILL" in killed.stderr
        assert outcome(tmp_path / phase) == outcome(tmp_path / "undisturbed")
