"""What Slurm is asked for, and how its answers are reported. Small scripts replace Slurm's commands."""

import json
import os
import sys

import pytest

from grpo_cli.errors import ConfigError, DataError, SetupError, TrainingError
from grpo_cli.launch import slurm

COMMANDS = {
    "sbatch": 'echo "Submitted batch job 7"',
    "srun": "exit 1",  # must exist, but never runs
    "squeue": "echo COMPLETED",
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Replace one of Slurm's commands with a line of shell."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "POLL_S", 0)

    def replace(command: str, line: str) -> None:
        (bin_dir / command).write_text(f"#!/bin/sh\n{line}\n")
        (bin_dir / command).chmod(0o755)

    for command, line in COMMANDS.items():
        replace(command, line)
    return replace


@pytest.fixture
def launch(compose_train, tmp_path):
    def launch(*overrides: str) -> None:
        (tmp_path / "run").mkdir()
        config = compose_train("cluster=slurm_2x8", *overrides)
        slurm.launch("train", tmp_path / "run/config.yaml", config.cluster)

    return launch


def test_slurm_is_asked_for_the_nodes_and_ranks_of_the_cluster(fake, launch, tmp_path):
    launch("cluster.slurm.partition=a100", "cluster.slurm.mem_gib=500", "cluster.slurm.setup=[module load cuda]")
    asked = (tmp_path / "run/logs/slurm/7_submission.sh").read_text().splitlines()
    expected = {
        *("#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8"),
        *("#SBATCH --cpus-per-task=8", "#SBATCH --mem=500G", "#SBATCH --time=1440", "#SBATCH --partition=a100"),
        *("#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=USR2@600", "module load cuda"),
    }
    assert expected - set(asked) == set()
    assert "--cpus-per-task=8 --kill-on-bad-exit=1" in asked[-1]


def test_a_job_does_not_inherit_the_variables_of_the_job_that_submits_it(fake, launch, tmp_path, monkeypatch):
    inner = tmp_path / "inner.txt"
    fake("sbatch", f'env > {inner}; echo "Submitted batch job 7"')
    outer = {"SLURM_JOB_ID": "5", "SLURM_MEM_PER_CPU": "100", "SLURM_ARRAY_TASK_ID": "3", "SUBMITIT_EXECUTOR": "slurm"}
    for name, value in {**outer, "SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "mine"}.items():
        monkeypatch.setenv(name, value)
    launch()
    names = {line.split("=")[0] for line in inner.read_text().splitlines()}
    assert names & {*outer, "SLURM_CONF", "SBATCH_PARTITION"} == {"SLURM_CONF", "SBATCH_PARTITION"}
    assert outer.items() <= os.environ.items()


def test_a_job_that_slurm_ended_is_reported_with_the_fix(fake, launch, tmp_path, capsys):
    # First the job is pending, then the controller does not answer, then the job has ended.
    asked = tmp_path / "asked"
    fake(
        "squeue", f"echo x >> {asked}; case $(wc -l < {asked}) in 1) echo PENDING;; 2) exit 1;; *) echo TIMEOUT;; esac"
    )
    with pytest.raises(TrainingError, match=r"job 7 ended as TIMEOUT\. Raise cluster\.slurm\.time_min"):
        launch()
    states = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Slurm job 7:")]
    assert states == ["Slurm job 7: PENDING", "Slurm job 7: TIMEOUT"]


def test_a_job_that_slurm_no_longer_knows_is_not_waited_for(fake, launch):
    fake("squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    with pytest.raises(TrainingError, match="FORGOTTEN"):
        launch()


def test_the_error_of_a_rank_is_raised_again(fake, launch, tmp_path):
    report = json.dumps({"kind": "DataError", "message": "no rows", "traceback": ""})
    fake("squeue", f"echo '{report}' > {tmp_path}/run/logs/rank_3.error.json; echo FAILED")
    with pytest.raises(DataError, match="no rows"):
        launch()


def test_the_log_of_rank_0_is_shown_once(fake, launch, tmp_path, capsys):
    log = tmp_path / "run/logs/slurm/7_0_log.out"
    fake("squeue", f"echo step >> {log}; [ $(wc -l < {log}) = 3 ] && echo COMPLETED || echo RUNNING")
    launch()
    assert capsys.readouterr().out.count("step\n") == 3


def test_a_job_is_followed_to_its_end_although_stdout_is_closed(fake, launch, tmp_path, monkeypatch):
    class Closed:
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    fake("squeue", "echo TIMEOUT")
    with pytest.raises(TrainingError, match="TIMEOUT"):
        launch()


def test_a_rejected_job_names_the_settings(fake, launch):
    fake("sbatch", 'echo "invalid partition" >&2; exit 1')
    with pytest.raises(ConfigError, match=r"(?s)invalid partition.*cluster\.slurm"):
        launch()


def test_without_slurm_the_error_says_what_to_do(launch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="cluster=gpu_8"):
        launch()


def test_a_rank_has_the_environment_that_torchrun_would_give_it(monkeypatch, capsys):
    # The third task of two nodes with two tasks each: the first of the second node.
    task = {"SLURM_JOB_ID": "10007", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1"}
    task |= {"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SUBMITIT_EXECUTOR": "slurm", "SLURMD_NODENAME": "n1"}
    task |= {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}
    environment = dict(task)
    started = []
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(slurm.signal, "signal", lambda *_: None)
    slurm.run_rank("train", "/run/config.yaml")
    assert environment | {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"} == environment
    assert environment["MASTER_ADDR"] == "10.0.0.1"
    assert environment["MASTER_PORT"] == "20007"  # the eighth of 10,000 ports from 20000 on
    assert started == [
        (sys.executable, [sys.executable, "-P", "-m", "grpo_cli.launch.worker", "train", "/run/config.yaml"])
    ]
    assert "rank 2 of 4 is on n1" in capsys.readouterr().out
