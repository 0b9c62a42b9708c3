"""Start the ranks of a run as a Slurm job, through submitit, wait for it and report errors.

A rank is the same process as on one machine: submitit starts a task, which finds out its rank and becomes
grpo_cli.launch.worker. Nothing heavy is imported here, since each task imports this module first.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import submitit

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.commands import COMMAND_OF_LOOP, COMMANDS
from grpo_cli.errors import ConfigError, SetupError, Stopped, TrainingError
from grpo_cli.launch.rank_errors import first_error, remove_error_files
from grpo_cli.launch.requests import Requests, exit_status, print_if_open
from grpo_cli.launch.slurm_environment import without_job_variables
from grpo_cli.launch.worker import resume_hint
from grpo_cli.secret import masked_shell_line

POLL_S = 3.0  # between two questions to Slurm's controller
# Final states of a job; https://slurm.schedmd.com/job_state_codes.html
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", "FORGOTTEN"),
}
FIXES = {
    "TIMEOUT": "Raise cluster.slurm.time_min, or resume the run with resume=<its folder>. ",
    "OUT_OF_MEMORY": "Raise cluster.slurm.mem_gib. ",
}
PORTS = range(20000, 30000)  # below the ports that Linux uses for outgoing connections


def launch(loop: str, config_file: Path, cluster: ClusterConfig) -> None:
    """Run `loop` on every rank of a Slurm job, with the settings in `config_file`, and show rank 0's output to the end.

    On SIGINT or SIGTERM, a job that is in a step saves it first; a second signal cancels the job. SIGHUP is not
    handled: a job continues when its user logs out. Raises the error that a rank reports, with its original type, or a
    TrainingError with the final state of the job and the path of its log.
    """
    if shutil.which("sbatch") is None:
        raise SetupError(
            "cluster.slurm needs Slurm's sbatch, srun, squeue and scancel, and this machine has none. Start from a "
            "machine that submits to Slurm, or run here, as with cluster=gpu_8."
        )
    logs = config_file.parent / "logs"
    logs.mkdir(exist_ok=True)
    remove_error_files(logs)
    with Requests((signal.SIGINT, signal.SIGTERM)) as requests:
        job = _submit(loop, config_file, cluster)
        print_if_open(f"Slurm job {job.job_id} is submitted; its logs: {logs}/", sys.stdout)
        state = _wait(job, requests, saves=COMMANDS[COMMAND_OF_LOOP[loop]].saves)
    if state == "COMPLETED":
        return
    # If Slurm ended the job, the ranks' own errors only say that other ranks are gone.
    error = first_error(logs) if state == "FAILED" else None
    if requests.first and not isinstance(error, Stopped):
        error = Stopped(f"Stopped by {requests.first.name}, and Slurm job {job.job_id} has ended as {state}.")
    if isinstance(error, Stopped):
        error = Stopped(f"{error} {resume_hint(COMMAND_OF_LOOP[loop], config_file.parent)}")
        if requests.first:
            error.exit_status = exit_status(requests.first)
    raise error or TrainingError(
        f"Slurm job {job.job_id} ended as {state}. {FIXES.get(state, '')}Its log: {job.paths.stdout}"
    )


def run_rank(loop: str, config_file: str) -> None:
    """Turn the process of a Slurm task into a rank, with the environment that torchrun would give it."""
    task = submitit.JobEnvironment()
    os.environ |= {
        "RANK": str(task.global_rank),
        "LOCAL_RANK": str(task.local_rank),
        "WORLD_SIZE": str(task.num_tasks),
        "LOCAL_WORLD_SIZE": str(task.num_tasks // task.num_nodes),
        # The address of the first node, where rank 0 is: the other nodes may not be able to resolve its name.
        "MASTER_ADDR": os.environ["SLURM_LAUNCH_NODE_IPADDR"],
        "MASTER_PORT": str(PORTS[int(task.raw_job_id) % len(PORTS)]),  # jobs on the same machine get different ports
    }
    print(f"rank {task.global_rank} of {task.num_tasks} is on {os.environ['SLURMD_NODENAME']}", flush=True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning that the time is nearly up; some loops handle it
    os.execv(sys.executable, [sys.executable, "-P", "-m", "grpo_cli.launch.worker", loop, config_file])


def _submit(loop: str, config_file: Path, cluster: ClusterConfig) -> submitit.SlurmJob:
    slurm = cluster.slurm
    assert slurm is not None
    ranks_per_node = cluster.ranks // cluster.nodes
    executor = submitit.SlurmExecutor(config_file.parent / "logs" / "slurm")
    executor.update_parameters(
        job_name=f"r1zero-{loop}",
        nodes=cluster.nodes,
        ntasks_per_node=ranks_per_node,
        gpus_per_node=ranks_per_node if cluster.device == Device.cuda else None,
        cpus_per_task=slurm.cpus_per_rank,
        mem=f"{slurm.mem_gib}G" if slurm.mem_gib else None,
        time=slurm.time_min,
        partition=slurm.partition,
        account=slurm.account,
        qos=slurm.qos,
        # PYTHONSAFEPATH: without the current folder on sys.path, where a file could have the name of a library.
        setup=["export SUBMITIT_LOG_LEVEL=WARNING PYTHONSAFEPATH=1", *slurm.setup],
        stderr_to_stdout=True,
        # srun does not inherit the job's CPUs per task. If one rank fails, all ranks end.
        srun_args=[f"--cpus-per-task={slurm.cpus_per_rank}", "--kill-on-bad-exit=1"],
        signal_delay_s=slurm.save_before_s,
        # A preempted job is started again, resumes from its last checkpoint and appends to its log.
        additional_parameters={"requeue": True, "open-mode": "append"},
    )
    try:
        with without_job_variables():
            job: Any = executor.submit(run_rank, loop, str(config_file.absolute()))
    except submitit.core.utils.FailedJobError as error:
        raise ConfigError(
            f"Slurm rejects the job: {error}\nSet cluster.nodes, cluster.ranks and cluster.slurm.* to what `sinfo` "
            "shows and your account allows."
        ) from None
    script = job.paths.submission_file  # Slurm has its own copy
    script.write_text(masked_shell_line(script.read_text(encoding="utf-8")), encoding="utf-8")
    return job


def _wait(job: submitit.SlurmJob, requests: Requests, *, saves: bool) -> str:
    """Show the job's states and rank 0's output until the job has ended. Returns its final state.

    A request to stop is passed on to the ranks if the command `saves`; otherwise it cancels the job.
    """
    last_state, num_shown, is_asked, is_cancelled = "", 0, False, False
    while True:
        state = _state(job.job_id)
        num_shown = _show(job.paths.stdout, num_shown)
        if state and state != last_state:
            print_if_open(f"Slurm job {job.job_id}: {state}", sys.stdout)
            last_state = state
        if last_state in ENDED:
            return last_state
        if requests.first and not is_asked and saves and last_state == "RUNNING":
            is_asked = True
            subprocess.run(["scancel", "--signal=USR1", job.job_id])  # ranks that have no step to save exit
            print_if_open(
                f"\n{requests.first.name}: the job saves at the end of this step. A second {requests.first.name} "
                "cancels it."
            )
        elif not is_cancelled and (requests.is_repeated or (requests.first and not is_asked)):
            is_cancelled = True
            job.cancel(check=False)
        requests.wait(POLL_S)


def _state(job_id: str) -> str:
    """The job's state in Slurm; FORGOTTEN if Slurm no longer knows the job; empty if Slurm does not answer."""
    squeue = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T"]
    answer = subprocess.run(squeue, capture_output=True, text=True)
    return "FORGOTTEN" if "Invalid job id" in answer.stderr else answer.stdout.strip()


def _show(log: Path, num_shown: int) -> int:
    """Print a log except for its first `num_shown` bytes. Returns the size of the log."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(num_shown)
        print_if_open(file.read().decode(errors="replace"), sys.stdout, end="")
        return file.tell()
