"""`r1zero train -m` with real runs."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
# A group of one is rejected before anything is loaded: two of the four jobs fail.
SWEEP = ("train", "-m", "experiment=smoke", "steps=1", "data.num_heldout=4", "algorithm.num_minibatches=2")
SWEEP += ("algorithm.beta=0,0.04", "rollout.group_size=4,1", "hydra.sweep.dir=sweep")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, r1zero) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder and the output of a sweep with four jobs, two of which fail."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder / "sweep", r1zero(*SWEEP, cwd=folder)


def test_each_job_has_its_own_folder_and_run(sweep):
    folders = sorted(path for path in sweep[0].iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == [
        *("0_beta-0_group_size-4", "1_beta-0_group_size-1"),
        *("2_beta-0.04_group_size-4", "3_beta-0.04_group_size-1"),
    ]
    for folder in folders[::2]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [0, 1]
        assert ("policy/kl_ref" in rows[1]) == ("beta-0.04" in folder.name)


def test_the_wandb_runs_of_a_sweep_are_one_group(sweep):
    offline = sorted(sweep[0].glob("*/wandb/offline-run-*"))
    assert len(offline) == 2
    for run in offline:
        inspected = subprocess.run(
            [BIN / "wandb", "leet", "inspect", "--json", run], capture_output=True, text=True, check=True
        )
        (started,) = [json.loads(line)["run"] for line in inspected.stdout.splitlines() if '"run_group"' in line]
        assert started["run_group"] == "sweep"


def test_failed_jobs_do_not_stop_others_and_are_listed_with_their_error(sweep):
    folder, result = sweep
    assert result.returncode == 1
    assert "1_beta-0_group_size-1 failed:" in result.stdout
    assert "makes every advantage 0" in (folder / "3_beta-0.04_group_size-1" / "error.txt").read_text()
    with (folder / "sweep.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert float(rows[0]["rollout/tokens"]) > 0
    assert (folder / "sweep.html").stat().st_size > 1000


def test_starting_a_sweep_again_skips_finished_jobs(sweep, r1zero):
    folder = sweep[0]
    before = [(file, file.stat().st_mtime_ns) for file in sorted(folder.glob("*/metrics.jsonl"))]
    result = r1zero(*SWEEP, cwd=folder.parent)
    assert result.returncode == 1
    assert result.stdout.count("has already finished") == 2
    assert [(file, file.stat().st_mtime_ns) for file in sorted(folder.glob("*/metrics.jsonl"))] == before


def test_the_report_can_be_written_again(sweep, r1zero):
    (sweep[0] / "sweep.html").unlink()
    result = r1zero("sweep-report", "sweep", cwd=sweep[0].parent)
    assert result.returncode == 0, result.stderr
    assert (sweep[0] / "sweep.html").is_file()
