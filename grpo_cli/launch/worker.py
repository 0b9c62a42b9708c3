"""The entry point of a rank: load the frozen settings, redirect the output of libraries, run the command's loop.

Hydra never runs here. The environment is set before torch, vLLM and DeepSpeed are imported, since they read it then.
"""

import gc
import io
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
from grpo_cli.config.grammar import quoted, resume_command, shell_word
from grpo_cli.config.resolvers import register_resolvers
from grpo_cli.files import write_whole
from grpo_cli.launch.process import exit_with_parent, keep_freed_memory
from grpo_cli.launch.rank_errors import error_file
from grpo_cli.limits import check_open_files, check_shared_memory
from grpo_cli.paths import shorten_temporary_folder
from grpo_cli.printing import say
from grpo_cli.progress import stage
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.lock import WRITER_LOCK, locked
from grpo_cli.screen import Screen
from grpo_cli.secret import mapped, masked


class Terminal(io.TextIOWrapper):
    """A stream to the current stdout. Once that is a closed terminal or pipe, output is dropped."""

    def __init__(self) -> None:
        super().__init__(os.fdopen(os.dup(1), "wb"), encoding="utf-8", errors="replace", line_buffering=True)

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def resume_hint(command: str, folder: Path) -> str:
    """How to continue what was stopped in `folder`: a run's folder or, for a command that samples, its part in it."""
    if COMMANDS[command].saves:
        return f"To resume it: {resume_command(command, folder)}"
    return f"To continue, run the same command with {shell_word(f'run.dir={quoted(str(folder.parent))}')}"


def main(loop_name: str, config_file: Path) -> None:
    """Run a loop as the rank in RANK. An error is written to the rank's error file and raised."""
    command = COMMAND_OF_LOOP[loop_name]
    exit_with_parent(os.getppid())
    shorten_temporary_folder()
    stop.exit_on_request()  # until the loop has something to save
    rank = int(os.environ["RANK"])
    register_resolvers()
    config = to_typed(read_frozen(config_file, is_ours=True), command)  # the launcher wrote it
    if COMMANDS[command].saves and config.cluster.slurm is not None:
        # Slurm sends these when it preempts or requeues the job, and before the time is up. During start-up too they
        # do not end the rank: it stops after its first step.
        stop.listen(signal.SIGTERM, signal.SIGUSR2)
    logs = config_file.parent / "logs"
    logs.mkdir(exist_ok=True)
    _set_environment(config.cluster, verbose=config.logger.verbose)
    if config.cluster.device == Device.cpu:
        keep_freed_memory()
    terminal = Terminal() if config.logger.verbose else _redirect_output(logs / f"rank_{rank}.log")
    file = error_file(logs, rank)
    file.unlink(missing_ok=True)  # may exist if Slurm requeued the job
    try:
        check_open_files()
        check_shared_memory()
        with locked(config_file.parent / WRITER_LOCK) if rank == 0 else nullcontext():
            gc.disable()  # imports create objects that stay; collecting garbage would take a fifth of their time
            with stage(Screen(file=terminal, quiet=rank != 0), "loading libraries"):
                loop = pkgutil.resolve_name(LOOPS[loop_name])
            gc.freeze()  # later collections skip these objects
            gc.enable()
            loop(config, terminal)
    except BaseException as error:  # the launcher reports it, whatever it is
        report = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        report = mapped(report, masked)
        try:
            write_whole(file, json.dumps(report))  # the launcher may end this rank at any time
        except OSError:  # such as a full disk, which may also be the error itself
            file.unlink(missing_ok=True)
            say(f"Rank {rank}: {error}", terminal)
        raise


def _set_environment(cluster: ClusterConfig, *, verbose: bool) -> None:
    cores = len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])
    if cluster.slurm is not None:
        cores = cluster.slurm.cpus_per_rank  # Slurm may already have bound this process to its own cores
    os.environ["OMP_NUM_THREADS"] = str(cluster.threads or max(1, cores))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would slow others down on shared cores
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # otherwise vLLM sends usage statistics
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine runs in this process, with the trainer
    if cluster.device == Device.cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        if cluster.vllm.enforce_eager:
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # otherwise vLLM's sampler still compiles, for seconds


def _redirect_output(log: Path) -> Terminal:
    """Send stdout and stderr, also of compiled code, to a file. Returns a stream to the old stdout."""
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
    # Everything is closed by now. A normal exit could be aborted by gloo's threads right after an exchange, and would
    # wait for a user's function that never returns.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
