"""The loops that `r1zero analyze` starts."""

import json
from pathlib import Path

import pytest

from grpo_cli.commands import analyze


@pytest.fixture
def started(tmp_path, monkeypatch) -> list[str]:
    """The loops that the command starts, in order. Each one leaves a report."""
    loops = []

    def start(loop: str, config_file: Path, cluster) -> None:
        assert config_file == tmp_path / "run/analyze/config.yaml"
        loops.append(loop)
        (tmp_path / "run/analyze.json").write_text(json.dumps({"templates": {"default": {"avg": 0.5}}}))

    monkeypatch.setattr(analyze, "start", start)
    monkeypatch.setattr(analyze, "place_in_sweep", lambda composed: None)
    return loops


@pytest.mark.parametrize(
    ("judge", "loops"), [("analyze.judge=null", ["analyze"]), ("analyze.judge=builtin:random", ["analyze", "judge"])]
)
def test_a_judge_runs_in_its_own_processes(judge, loops, started, compose_as, tmp_path):
    from omegaconf import OmegaConf

    composed = OmegaConf.structured(compose_as("analyze", judge, f"run.dir={tmp_path}/run"))
    assert analyze.run(composed) == 0.5
    assert started == loops
