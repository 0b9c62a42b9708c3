"""Start the ranks of a run as a Slurm job, through submitit, and bring back what became of them.

A rank is the same process as on one machine: submitit starts a task, which learns its place among the others and
becomes grpo_cli.launch.worker. Nothing heavy is imported here, since each task imports this module first.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import submitit

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.commands import COMMAND_OF_LOOP, COMMANDS
from grpo_cli.errors import ConfigError, SetupError, Stopped, TrainingError
from grpo_cli.launch import faults
from grpo_cli.launch.outer_job import outside_its_job
from grpo_cli.launch.requests import Requests, exit_status, tell
from grpo_cli.launch.worker import how_to_go_on
from grpo_cli.secret import masked_shell_line

POLL_S = 3.0  # between two questions to Slurm's controller
# States that a job does not leave again; https://slurm.schedmd.com/job_state_codes.html
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", "FORGOTTEN"),
}
MENDS = {
    "TIMEOUT": "Raise cluster.slurm.time_min, or go on with resume=auto. ",
    "OUT_OF_MEMORY": "Raise cluster.slurm.mem_gib. ",
}
PORTS = range(20000, 30000)  # below those that Linux gives to outgoing connections


def launch(command: str, config_file: Path, cluster: ClusterConfig) -> None:
    """Run `command` with its frozen configuration on every rank of a Slurm job, and show what rank 0 says, to the end.

    On SIGINT or SIGTERM a job that is in a step saves it first; a second one cancels the job. SIGHUP is left alone: a
    job goes on when its user logs out. A fault that a rank explains is raised again here, as what it was; any other end
    than a good one is a TrainingError with Slurm's word for it and the place of the log.
    """
    if shutil.which("sbatch") is None:
        raise SetupError(
            "cluster.slurm needs Slurm's sbatch, srun, squeue and scancel, and this machine has none. Start from a "
            "machine that submits to Slurm, or run here, as with cluster=gpu_8."
        )
    logs = config_file.parent / "logs"
    logs.mkdir(exist_ok=True)
    faults.forget(logs)
    with Requests((signal.SIGINT, signal.SIGTERM)) as requests:
        job = _submit(command, config_file, cluster)
        tell(f"Slurm job {job.job_id} is submitted; its logs: {logs}/", sys.stdout)
        state = _wait(job, requests, saves=COMMANDS[COMMAND_OF_LOOP[command]].saves)
    if state == "COMPLETED":
        return
    # Of a job that Slurm has ended, ranks can tell only that the others are gone.
    fault = faults.first(logs) if state == "FAILED" else None
    if requests.first and not isinstance(fault, Stopped):
        what = f"Stopped by {requests.first.name}, and Slurm job {job.job_id} has ended as {state}."
        fault = Stopped(f"{what} {how_to_go_on(COMMAND_OF_LOOP[command], config_file.parent)}")
    if isinstance(fault, Stopped) and requests.first:
        fault.exit_status = exit_status(requests.first)
    raise fault or TrainingError(
        f"Slurm job {job.job_id} ended as {state}. {MENDS.get(state, '')}Its log: {job.paths.stdout}"
    )


def run_rank(command: str, config_file: str) -> None:
    """Let the process of a Slurm task become a rank, with the environment that torchrun would give it."""
    task = submitit.JobEnvironment()
    os.environ |= {
        "RANK": str(task.global_rank),
        "LOCAL_RANK": str(task.local_rank),
        "WORLD_SIZE": str(task.num_tasks),
        "LOCAL_WORLD_SIZE": str(task.num_tasks // task.num_nodes),
        # Of the first node, where rank 0 is. Its name in Slurm need not be one that the others can look up.
        "MASTER_ADDR": os.environ["SLURM_LAUNCH_NODE_IPADDR"],
        "MASTER_PORT": str(PORTS[int(task.raw_job_id) % len(PORTS)]),  # jobs that share a machine have other numbers
    }
    print(f"rank {task.global_rank} of {task.num_tasks} is on {os.environ['SLURMD_NODENAME']}", flush=True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's word that the time is nearly up, which some commands heed
    os.execv(sys.executable, [sys.executable, "-P", "-m", "grpo_cli.launch.worker", command, config_file])


def _submit(command: str, config_file: Path, cluster: ClusterConfig) -> submitit.SlurmJob:
    slurm = cluster.slurm
    ranks_a_node = cluster.ranks // cluster.nodes
    executor = submitit.SlurmExecutor(config_file.parent / "logs" / "slurm")
    executor.update_parameters(
        job_name=f"r1zero-{command}",
        nodes=cluster.nodes,
        ntasks_per_node=ranks_a_node,
        gpus_per_node=ranks_a_node if cluster.device == Device.cuda else None,
        cpus_per_task=slurm.cpus_per_rank,
        mem=f"{slurm.mem_gib}G" if slurm.mem_gib else None,
        time=slurm.time_min,
        partition=slurm.partition,
        account=slurm.account,
        qos=slurm.qos,
        # Without the folder of the submission on its path, where a file may have the name of a library.
        setup=["export SUBMITIT_LOG_LEVEL=WARNING PYTHONSAFEPATH=1", *slurm.setup],
        stderr_to_stdout=True,
        # srun does not take over the job's CPUs a task. One rank that fails ends all.
        srun_args=[f"--cpus-per-task={slurm.cpus_per_rank}", "--kill-on-bad-exit=1"],
        signal_delay_s=slurm.save_before_s,
        # What Slurm preempts starts again, and goes on from its last checkpoint; its log too.
        additional_parameters={"requeue": True, "open-mode": "append"},
    )
    try:
        with outside_its_job():
            job = executor.submit(run_rank, command, str(config_file.absolute()))
    except submitit.core.utils.FailedJobError as error:
        raise ConfigError(
            f"Slurm refuses the job: {error}\nSet cluster.nodes, cluster.ranks and cluster.slurm.* to what `sinfo` and "
            "your account offer."
        ) from None
    script = job.paths.submission_file  # Slurm has its own copy
    script.write_text(masked_shell_line(script.read_text()))
    return job


def _wait(job: submitit.SlurmJob, requests: Requests, *, saves: bool) -> str:
    """Show the job's states and what rank 0 prints until it has ended; how it ended.

    A request to stop is passed on to ranks that save, and else cancels the job.
    """
    seen, shown, is_asked, is_cancelled = "", 0, False, False
    while True:
        state = _state(job.job_id)
        shown = _show(job.paths.stdout, shown)
        if state and state != seen:
            tell(f"Slurm job {job.job_id}: {state}", sys.stdout)
            seen = state
        if seen in ENDED:
            return seen
        if requests.first and not is_asked and saves and seen == "RUNNING":
            is_asked = True
            subprocess.run(["scancel", "--signal=USR1", job.job_id])  # ends ranks that have no step to save
            tell(f"\n{requests.first.name}: the job saves at the end of this step. A second one cancels it.")
        elif not is_cancelled and (requests.is_repeated or (requests.first and not is_asked)):
            is_cancelled = True
            job.cancel(check=False)
        requests.wait(POLL_S)


def _state(job_id: str) -> str:
    """Slurm's word for it, FORGOTTEN when it no longer knows the job; empty when it does not answer."""
    squeue = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T"]
    answer = subprocess.run(squeue, capture_output=True, text=True)
    return "FORGOTTEN" if "Invalid job id" in answer.stderr else answer.stdout.strip()


def _show(log: Path, shown: int) -> int:
    """Print what a log holds behind its first `shown` bytes; how many it holds."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(shown)
        tell(file.read().decode(errors="replace"), sys.stdout, end="")
        return file.tell()
