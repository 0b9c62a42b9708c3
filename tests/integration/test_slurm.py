"""Runs and sweeps through a real Slurm, started for these tests: a controller and two nodes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[1] / "slurm" / "slurm.sh"
NEEDED = ("slurmctld", "slurmd", "munged")


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in NEEDED if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)} (apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons need root to start other users' jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        subprocess.run([SCRIPT, "start", "2"], check=True)
        said = subprocess.run([SCRIPT, "env"], check=True, capture_output=True, text=True).stdout
        patch.setenv("SLURM_CONF", said.strip().removeprefix("export SLURM_CONF="))
        yield
        subprocess.run([SCRIPT, "stop"], check=True)


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def queue() -> str:
    """The jobs that wait or run; one that has ended may be "completing" for a moment."""
    command = ["squeue", "--noheader", "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ranks_of(run_dir: Path) -> list[psutil.Process]:
    config_file = str(run_dir / "config.yaml")
    return [process for process in psutil.process_iter(["cmdline"]) if config_file in (process.info["cmdline"] or [])]


def test_two_nodes_train_one_run(tmp_path, r1zero):
    result = r1zero("train", "cluster=slurm_2x1_cpu", "experiment=smoke", "logger=none", "run.dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert steps(tmp_path / "run") == [0, 1, 2]
    for line in ("rank 0 of 2 is on n0", "held-out accuracy greedy:", "COMPLETED"):
        assert line in result.stdout
    (log_of_rank_1,) = (tmp_path / "run/logs/slurm").glob("*_1_log.out")
    assert "rank 1 of 2 is on n1" in log_of_rank_1.read_text()


def test_a_ranks_fault_is_told_as_on_one_machine(tmp_path, r1zero):
    result = r1zero(
        *("train", "cluster=slurm_2x1_cpu", "logger=none", "run.dir=run", "rollout.max_prompt_tokens=1"), cwd=tmp_path
    )
    assert result.returncode == 1
    assert "are longer than rollout.max_prompt_tokens=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert queue() == ""


@pytest.fixture
def started(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a run of two nodes in `<tmp_path>/run`; what the test leaves of it is cancelled."""
    launchers = []

    def start(*overrides: str) -> subprocess.Popen:
        arguments = ("train", "cluster=slurm_2x1_cpu", "logger=none", "run.dir=run", *overrides)
        with (tmp_path / "printed.txt").open("w") as printed:
            launchers.append(
                subprocess.Popen(
                    [Path(sys.executable).parent / "r1zero", *arguments], stdout=printed, stderr=printed, cwd=tmp_path
                )
            )
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.terminate()
        launcher.wait()


def wait_until(is_so: Callable[[], bool], launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stopped_launcher_cancels_its_job(tmp_path, started):
    launcher = started()
    wait_until(lambda: len(ranks_of(tmp_path / "run")) == 2, launcher)
    ranks = ranks_of(tmp_path / "run")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=10) == 128 + signal.SIGTERM
    assert "is cancelled" in (tmp_path / "printed.txt").read_text()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert alive == []
    assert queue() == ""


def test_a_requeued_job_saves_and_goes_on_by_itself(tmp_path, started):
    launcher = started("steps=12", "checkpoint.every_steps=0", "experiment=smoke")
    wait_until(lambda: (tmp_path / "run/metrics.jsonl").exists() and len(steps(tmp_path / "run")) >= 4, launcher)
    (job,) = queue().split()[:1]
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_until(lambda: " PD " in queue(), launcher)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)  # else in two minutes
    printed = tmp_path / "printed.txt"
    assert launcher.wait(timeout=200) == 0, printed.read_text()
    assert steps(tmp_path / "run") == list(range(13))
    assert printed.read_text().count("rank 0 of 2 is on") == 2
    assert (tmp_path / "run/logs/rank_0.log").read_text().count("Stopped as asked after step") == 1


def test_a_sweep_is_a_job_of_slurm_for_each_of_its_jobs(tmp_path, r1zero):
    result = r1zero(
        *("train", "-m", "hydra/launcher=submitit_slurm", "hydra.sweep.dir=sweep", "experiment=smoke", "logger=none"),
        *("steps=1", "data.num_heldout=4", "algorithm.beta=0,0.04"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("0_beta-0", "1_beta-0.04"):
        assert steps(tmp_path / "sweep" / name) == [0, 1]
    assert len(list((tmp_path / "sweep/.submitit").glob("*/*_result.pkl"))) == 2
