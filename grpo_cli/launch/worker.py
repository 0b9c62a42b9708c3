"""A rank's entry: load the frozen configuration, keep third parties quiet, run the command's loop.

Hydra never runs here. The environment is set before torch, vLLM and DeepSpeed are imported, since they read it then.
"""

import gc
import json
import os
import pkgutil
import signal
import sys
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path

from grpo_cli import stop
from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.commands import COMMAND_OF_LOOP, COMMANDS, LOOPS
from grpo_cli.config.compose import to_typed
from grpo_cli.config.resolvers import register_resolvers
from grpo_cli.files import write_whole
from grpo_cli.launch import faults
from grpo_cli.launch.process import exit_with_parent, keep_freed_memory
from grpo_cli.launch.terminal import Terminal
from grpo_cli.limits import check_open_files, check_shared_memory
from grpo_cli.paths import shorten_temporary_folder
from grpo_cli.printing import say
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.lock import WRITER_LOCK, locked
from grpo_cli.secret import mapped, masked


def how_to_go_on(command: str, run_dir: Path) -> str:
    settings = "resume=auto" if COMMANDS[command].saves else f"run.dir={run_dir}"
    return f"The same command with {settings} goes on: {run_dir}"


def main(loop_name: str, config_file: Path) -> None:
    command = COMMAND_OF_LOOP[loop_name]
    exit_with_parent(os.getppid())
    shorten_temporary_folder()
    stop.end_at_once()  # until the loop has something to save
    rank = int(os.environ["RANK"])
    register_resolvers()
    config = to_typed(read_frozen(config_file, is_ours=True), command)  # the launcher wrote it
    if COMMANDS[command].saves and config.cluster.slurm is not None:
        # From Slurm itself: when it preempts or requeues, and before the time is up. They do not wait for a first step.
        stop.listen(signal.SIGTERM, signal.SIGUSR2)
    logs = config_file.parent / "logs"
    logs.mkdir(exist_ok=True)
    _set_environment(config.cluster, verbose=config.logger.verbose)
    if config.cluster.device == Device.cpu:
        keep_freed_memory()
    terminal = Terminal() if config.logger.verbose else _redirect_output(logs / f"rank_{rank}.log")
    fault = faults.of_rank(logs, rank)
    fault.unlink(missing_ok=True)  # of this rank before Slurm requeued its job
    try:
        check_open_files()
        check_shared_memory()
        with locked(config_file.parent / WRITER_LOCK) if rank == 0 else nullcontext():
            gc.disable()  # nearly all that the imports make stays: looking through it is a fifth of their time
            loop = pkgutil.resolve_name(LOOPS[loop_name])
            gc.freeze()  # nor need any later collection look through it
            gc.enable()
            loop(config, terminal)
    except BaseException as error:  # reported by the launcher, whatever it is
        report = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        report = mapped(report, masked)
        try:
            write_whole(fault, json.dumps(report))  # the launcher may end this rank at any time
        except OSError:  # the disk may be full, which may be the very fault
            fault.unlink(missing_ok=True)
            say(f"Rank {rank}: {error}", terminal)
        raise


def _set_environment(cluster: ClusterConfig, *, verbose: bool) -> None:
    cores = len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])
    if cluster.slurm is not None:
        cores = cluster.slurm.cpus_per_rank  # it may have bound this process to its own already
    os.environ["OMP_NUM_THREADS"] = str(cluster.threads or max(1, cores))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve others on shared cores
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM would send statistics home
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine lives in this process, beside the trainer
    if cluster.device == Device.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        if cluster.vllm.enforce_eager:
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # vLLM's sampler would still compile, for seconds


def _redirect_output(log: Path):
    """Send stdout and stderr, also those of compiled code, to a file; return a stream on the old stdout."""
    sys.stdout.flush()
    terminal = Terminal()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return terminal


if __name__ == "__main__":
    status = 0
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except BaseException:
        traceback.print_exc()
        status = 1
    # All is closed by now. Gloo's threads can abort a process that ends right after an exchange, and a user's function
    # that does not return would be awaited.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
