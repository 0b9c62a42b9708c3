"""Runs and sweeps through a real Slurm that these tests start: a controller and two nodes on this machine."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from grpo_cli.data import make_zero
from grpo_cli.runs.resume import whole_checkpoints

SCRIPT = Path(__file__).parents[1] / "slurm" / "slurm.sh"
RUN = ("logger=none", "run.dir=run")
SHORT = ("rollout.max_prompt_tokens=16", "rollout.max_new_tokens=64")
ONE_RANK = ("cluster.nodes=1", "cluster.ranks=1", "cluster.slurm.mem_gib=2", "experiment=smoke", *RUN)
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
        printed = subprocess.run([SCRIPT, "env"], check=True, capture_output=True, text=True).stdout
        patch.setenv("SLURM_CONF", printed.strip().removeprefix("export SLURM_CONF="))
        yield
        subprocess.run([SCRIPT, "stop"], check=True)


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def has_steps(run_dir: Path, number: int) -> bool:
    return (run_dir / "metrics.jsonl").exists() and len(steps(run_dir)) > number


def saved_last_step(run_dir: Path) -> bool:
    return whole_checkpoints(run_dir)[0].name == f"step_{steps(run_dir)[-1]:06d}"


def queue() -> str:
    """The jobs that wait or run, without those that have ended but are still "completing"."""
    command = ["squeue", "--noheader", "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ranks_of(run_dir: Path) -> list[psutil.Process]:
    config_file = str(run_dir / "config.yaml")
    return [process for process in psutil.process_iter(["cmdline"]) if config_file in (process.info["cmdline"] or [])]


def test_two_nodes_train_one_run(tmp_path, r1zero_process):
    result = r1zero_process(
        "train", "cluster=slurm_2x1_cpu", "experiment=smoke", "logger=none", "run.dir=run", cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert steps(tmp_path / "run") == [0, 1, 2]
    for line in ("rank 0 of 2 is on n0", "held-out accuracy greedy:", "COMPLETED"):
        assert line in result.stdout
    (log_of_rank_1,) = (tmp_path / "run/logs/slurm").glob("*_1_log.out")
    assert "rank 1 of 2 is on n1" in log_of_rank_1.read_text()


def test_the_error_of_a_rank_is_reported_as_on_one_machine(tmp_path, r1zero_process):
    weights = shutil.ignore_patterns("*.safetensors")  # the launcher does not look for them
    shutil.copytree(make_zero.base_model_dir("make_zero"), tmp_path / "model", ignore=weights)
    model = ("model=file", "model.path=./model", "data=make_zero", "template=make_zero", *SHORT)
    result = r1zero_process("train", *model, "cluster=slurm_2x1_cpu", "logger=none", "run.dir=run", cwd=tmp_path)
    assert result.returncode == 1
    assert "holds no weights (*.safetensors). Copy the model again." in result.stderr
    assert "Traceback" not in result.stderr
    assert queue() == ""


@pytest.fixture
def started(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a run on two nodes in `<tmp_path>/run`. It is cancelled after the test."""
    launchers = []

    def start(*overrides: str, wrapper: Sequence[str] = ()) -> subprocess.Popen:
        command = [*wrapper, Path(sys.executable).parent / "r1zero", "train", "cluster=slurm_2x1_cpu", *RUN, *overrides]
        with (tmp_path / "printed.txt").open("w") as printed:
            launchers.append(subprocess.Popen(command, stdout=printed, stderr=printed, cwd=tmp_path))
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.kill()
        launcher.wait()
    subprocess.run(["scancel", "--me"])


def wait_until(condition: Callable[[], bool], launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_launcher_that_is_stopped_ends_a_job_that_is_starting(tmp_path, started):
    launcher = started()
    wait_until(lambda: len(ranks_of(tmp_path / "run")) == 2, launcher)
    ranks = ranks_of(tmp_path / "run")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM, and Slurm job" in (tmp_path / "printed.txt").read_text()
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert alive == []
    assert queue() == ""


def test_a_launcher_that_is_stopped_lets_the_job_save_its_step(tmp_path, started):
    launcher = started("checkpoint.every_steps=0")
    wait_until(lambda: has_steps(tmp_path / "run", 1), launcher)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=120) == 128 + signal.SIGINT
    assert "the job saves at the end of this step" in (tmp_path / "printed.txt").read_text()
    assert saved_last_step(tmp_path / "run")
    assert queue() == ""


def test_a_run_on_one_machine_saves_its_step_when_slurm_signals_all_its_processes(tmp_path, started):
    settings = ("cluster=cpu", "checkpoint.every_steps=0")
    launcher = started(*settings, wrapper=("srun", "--ntasks=1"))
    wait_until(lambda: has_steps(tmp_path / "run", 1), launcher)
    (job,) = queue().split()[:1]
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    assert launcher.wait(timeout=120) == 128 + signal.SIGTERM, (tmp_path / "printed.txt").read_text()
    assert saved_last_step(tmp_path / "run")


def test_a_run_can_be_submitted_from_within_a_slurm_job(tmp_path):
    run = shlex.join([str(Path(sys.executable).parent / "r1zero"), "train", "cluster=slurm_2x1_cpu", *ONE_RANK])
    outer = ["sbatch", "--array=3", "--mem-per-cpu=100", "--output=outer.txt", f"--wrap={run}"]
    subprocess.run(outer, check=True, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while queue():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert steps(tmp_path / "run") == [0, 1, 2], (tmp_path / "outer.txt").read_text()
    assert "COMPLETED" in (tmp_path / "outer.txt").read_text()


def test_a_requeued_job_saves_and_resumes_by_itself(tmp_path, started):
    """One node generates, a step ahead of the other one, which trains; long responses are continued."""
    split = ("cluster.rollout_ranks=1", "rollout.max_staleness=2", "rollout.oversample=2")
    launcher = started("steps=12", "checkpoint.every_steps=0", "experiment=smoke", *split)
    wait_until(lambda: has_steps(tmp_path / "run", 3), launcher)
    (job,) = queue().split()[:1]
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_until(lambda: " PD " in queue(), launcher)
    subprocess.run(
        ["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True
    )  # otherwise it waits two minutes
    printed = tmp_path / "printed.txt"
    assert launcher.wait(timeout=200) == 0, printed.read_text()
    assert steps(tmp_path / "run") == list(range(13))
    assert printed.read_text().count("rank 0 of 2 is on") == 2
    # A digit: the traceback in the log shows the line of code too.
    assert len(re.findall(r"Stopped on request after step \d", (tmp_path / "run/logs/rank_0.log").read_text())) == 1


def test_each_job_of_a_sweep_is_a_slurm_job(tmp_path, r1zero_process):
    result = r1zero_process(
        *("train", "-m", "hydra/launcher=submitit_slurm", "hydra.sweep.dir=sweep", "experiment=smoke", "logger=none"),
        *("steps=1", "data.num_heldout=4", "algorithm.beta=0,0.04"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("0_beta-0", "1_beta-0.04"):
        assert steps(tmp_path / "sweep" / name) == [0, 1]
    assert len(list((tmp_path / "sweep/.submitit").glob("*/*_result.pkl"))) == 2
