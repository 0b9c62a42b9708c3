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
from contextlib import nullcontext
from pathlib import Path

from omegaconf import OmegaConf

from grpo_cli import stop
from grpo_cli.config.schema import SCHEMAS, ClusterConfig, Device
from grpo_cli.launch.lifeline import die_with
from grpo_cli.launch.lock import WRITER_LOCK, locked
from grpo_cli.launch.memory import keep_freed_memory
from grpo_cli.paths import shorten_temporary_folder

# What a rank does for each command; called with its configuration and a stream to the terminal.
LOOPS = {
    "train": "grpo_cli.training.grpo:train",
    "sft": "grpo_cli.training.sft:sft",
    "reward-model": "grpo_cli.training.reward_model:train_reward_model",
    "eval": "grpo_cli.evaluation.evaluate:evaluate",
    "analyze": "grpo_cli.evaluation.analyze:analyze",
    "sample": "grpo_cli.evaluation.sample:sample",
    "judge": "grpo_cli.evaluation.analyze:judge",
}
STAGES = {"judge": "analyze"}  # loops that a command starts after its own, in new processes, with the same settings
SAVING = {"train", "sft", "reward-model"}  # those that save what they have when they are asked to stop


def main(command: str, config_file: Path) -> None:
    die_with(os.getppid())
    shorten_temporary_folder()
    rank = int(os.environ["RANK"])
    schema = OmegaConf.structured(SCHEMAS[STAGES.get(command, command)])
    config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(config_file)))
    if command in SAVING:
        # From the launcher; under Slurm from Slurm itself: when it preempts or requeues, and before the time is up.
        of_slurm = (signal.SIGTERM, signal.SIGUSR2) if config.cluster.slurm is not None else ()
        stop.listen(signal.SIGUSR1, *of_slurm)
    logs = config_file.parent / "logs"
    logs.mkdir(exist_ok=True)
    _set_environment(config.cluster, verbose=config.logger.verbose)
    if config.cluster.device == Device.cpu:
        keep_freed_memory()
    terminal = sys.stdout if config.logger.verbose else _redirect_output(logs / f"rank_{rank}.log")
    fault = logs / f"rank_{rank}.error.json"
    fault.unlink(missing_ok=True)  # of this rank before Slurm requeued its job
    try:
        with locked(config_file.parent / WRITER_LOCK) if rank == 0 else nullcontext():
            gc.disable()  # nearly all that the imports make stays: looking through it is a fifth of their time
            loop = pkgutil.resolve_name(LOOPS[command])
            gc.freeze()  # nor need any later collection look through it
            gc.enable()
            loop(config, terminal)
    except BaseException as error:  # reported by the launcher, whatever it is
        report = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        try:
            fault.write_text(json.dumps(report))
        except OSError:  # the disk may be full, which may be the very fault
            fault.unlink(missing_ok=True)
            print(f"Rank {rank}: {error}", file=terminal)
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
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return terminal


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # all is closed by now, and gloo's threads can abort a process that ends right after an exchange
