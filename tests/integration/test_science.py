"""`r1zero science` with a real run: a claim at a twentieth of its size."""

import json
import subprocess
import sys
from pathlib import Path

from grpo_cli.science.claims import claim_files

SMALL = {"steps=100 eval.every_steps=10": "steps=5 eval.every_steps=1 data.num_heldout=32 rollout.prompts_per_step=4"}


def test_a_claim_runs_is_reported_and_does_not_run_again(tmp_path):
    text = claim_files()["three_curves"].read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "small.yaml").write_text(text)

    def science(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "r1zero"), "science", "small.yaml", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300).stdout

    assert "1 development" in science("seeds=0")
    metrics = tmp_path / "runs/science/small/rl_0/metrics.jsonl"
    written = metrics.stat().st_mtime_ns
    assert "done before" in science("seeds=0")
    assert metrics.stat().st_mtime_ns == written
    (facts,) = json.loads(science("--json"))
    (development,) = facts["sets"]
    assert (facts["verdict"], [seed for seed, _ in development["values"]]) == ("no verdict yet", [0])
    assert [len(steps) for curve in facts["curves"] for _, _, steps, _ in curve["runs"]] == [6, 6, 6]
    assert "three_curves" in (tmp_path / "runs/science/report.html").read_text()
