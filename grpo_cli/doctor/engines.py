"""Tests torch, vLLM and DeepSpeed, each in a separate process, so that a crash, a hang or lack of memory does not stop
the doctor.

`python -m grpo_cli.doctor.engines torch|vllm|deepspeed` runs one test and prints its result.
"""

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cli.doctor.findings import Finding, fault, ok

if TYPE_CHECKING:
    from grpo_cli.config.cluster import ClusterConfig
    from grpo_cli.model import BaseModel

LIMIT_S = 240.0  # to import an engine and work for a few seconds, on a busy machine
SEEN = "seen: "  # starts the line with a probe's result
PROBE = (sys.executable, "-P", "-m", "grpo_cli.doctor.engines")
# A vocabulary as large as Qwen's, and prompts with more tokens than vLLM reads in one step: some errors need both.
NUM_ENTRIES, NUM_ROWS = 151_669, 151_936  # of the tokenizer, and of the embedding
NUM_PROMPTS, PROMPT_LEN = 64, 200
MODEL = f"a model with {NUM_ENTRIES:,} tokens"


class ProbeError(Exception):
    """A probe failed; the message says how."""


def check_engine(engine: str, limit_s: float = LIMIT_S) -> Finding:
    """Let a random model answer prompts (vLLM) or take a step (DeepSpeed), with the classes that a run uses."""
    probe = engine.lower()
    try:
        return ok(run_probe(probe, limit_s))
    except ProbeError as error:
        return fault(f"does not work: {error}", f"For the whole output, run: {' '.join(PROBE)} {probe}")


def run_probe(name: str, limit_s: float) -> str:
    """The probe's result. Raises ProbeError if it fails, crashes, or takes more than `limit_s` seconds."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        # A file instead of a pipe: a process that the probe leaves behind would keep the pipe open.
        process = subprocess.Popen([*PROBE, name], stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"not done in {limit_s:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    if status < 0:
        cause = " (usually out of memory)" if status == -signal.SIGKILL else ""
        raise ProbeError(f"ended by {signal.Signals(-status).name}{cause}")
    seen = [line for line in lines if line.startswith(SEEN)]
    if status or not seen:
        raise ProbeError(lines[-1] if lines else f"exit status {status} and no output")
    return seen[-1].removeprefix(SEEN)


def main(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="r1zero_doctor_") as scratch:
        print(f"\n{SEEN}{PROBES[name](Path(scratch))}", flush=True)


def probe_torch(_: Path) -> str:
    """CUDA as torch sees it, as JSON, with the memory of each GPU in bytes."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append({"name": torch.cuda.get_device_name(index), "free": free, "total": total})
    return json.dumps({"cuda": torch.version.cuda, "gpus": gpus})


def probe_vllm(scratch: Path) -> str:
    cluster, model = _random_model(scratch)

    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.types import Request, Sampling

    engine = RolloutEngine(model, cluster)
    requests = [Request(_tokens(PROMPT_LEN, seed), seed=seed) for seed in range(NUM_PROMPTS)]
    completions = dict(engine.generate(requests, Sampling(1.0, 1.0, max_new_tokens=4)))
    for completion in completions.values():
        if not completion.token_ids or not all(map(math.isfinite, completion.logprobs)):
            raise SystemExit(f"{MODEL} answers {completion}")
    if len(completions) != NUM_PROMPTS:
        raise SystemExit(f"{MODEL} answers {len(completions)} of {NUM_PROMPTS} prompts")
    return f"{MODEL} answers {NUM_PROMPTS} prompts on {_device(cluster)}"


def probe_deepspeed(scratch: Path) -> str:
    cluster, model = _random_model(scratch)

    from grpo_cli.config.algorithm import AlgorithmConfig
    from grpo_cli.config.model import LoraConfig
    from grpo_cli.config.optimizer import OptimizerConfig
    from grpo_cli.training.batch import TrainingSequence
    from grpo_cli.training.logprobs import CHUNK_VALUES
    from grpo_cli.training.policy import Policy

    length = 1 + 2 * CHUNK_VALUES[cluster.device] // NUM_ENTRIES  # logits in several chunks
    sequence = TrainingSequence(
        _tokens(PROMPT_LEN, seed=0), _tokens(length, seed=1), (-1.0,) * length, advantage=1.0, weight=1 / length
    )
    policy = Policy(
        model, AlgorithmConfig(), OptimizerConfig(), cluster, LoraConfig(), temperature=1.0, num_updates=1, seed=0
    )
    norm = policy.update([[sequence]]).compute().get("policy/grad_norm", math.nan)
    if not norm > 0:  # or nan
        raise SystemExit(f"the gradient norm is {norm}")
    return f"{MODEL} takes a step on {_device(cluster)}"


PROBES = {"torch": probe_torch, "vllm": probe_vllm, "deepspeed": probe_deepspeed}


def _tokens(length: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(NUM_ENTRIES), k=length))


def _random_model(scratch: Path) -> "tuple[ClusterConfig, BaseModel]":
    """The cluster settings of this machine, and a model written to `scratch`; this process is the only rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        **{"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        **{"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TOKENIZERS_PARALLELISM": "false"},
    }
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    for name, value in {"OMP_WAIT_POLICY": "PASSIVE", **quiet}.items():
        os.environ.setdefault(name, value)

    import torch

    from grpo_cli.choices import Device, DType
    from grpo_cli.config.cluster import ClusterConfig, VLLMConfig
    from grpo_cli.config.model import ModelConfig

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    cluster = ClusterConfig(
        device=Device.cuda if on_gpu else Device.cpu,
        dtype=DType.bf16 if on_gpu else DType.fp32,
        gradient_checkpointing=False,
        vllm=VLLMConfig(enforce_eager=True, kv_cache_gib=0.25),
    )

    from grpo_cli.data.random_base import write_model, write_tokenizer
    from grpo_cli.model import load_base_model
    from grpo_cli.training.engine import init_distributed

    init_distributed(cluster)
    write_tokenizer(scratch, num_entries=NUM_ENTRIES)
    write_model(scratch, num_rows=NUM_ROWS, end_id=256)
    return cluster, load_base_model(ModelConfig(name="random", path=str(scratch)), needed_len=1024)


def _device(cluster: "ClusterConfig") -> str:
    return "the GPU" if cluster.device == "cuda" else "the CPU"


if __name__ == "__main__":
    main(sys.argv[1])
