"""Ranks that only generate, with real engines. What is sampled ahead is tested in test_chaos.py."""

import hashlib
import json
from pathlib import Path

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
