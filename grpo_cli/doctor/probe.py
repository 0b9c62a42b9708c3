"""What doctor runs in a process of its own: `python -m grpo_cli.doctor.probe torch|vllm|deepspeed`."""

import json
import math
import os
import random
import socket
import sys
import tempfile
from pathlib import Path

from grpo_cli.doctor.process import SEEN

# As large as Qwen's, and prompts that together have more tokens than vLLM reads in a step: much of what can go wrong
# needs such sizes.
NUM_ENTRIES, NUM_ROWS = 151_669, 151_936  # of the vocabulary, and of the embedding
NUM_PROMPTS, PROMPT_LEN = 64, 200
MODEL = f"a model with {NUM_ENTRIES:,} tokens"


def main(name: str) -> None:
    probe = {"torch": probe_torch, "vllm": probe_vllm, "deepspeed": probe_deepspeed}[name]
    with tempfile.TemporaryDirectory(prefix="r1zero_doctor_") as scratch:
        seen = probe(Path(scratch))
    print(f"\n{SEEN}{seen}", flush=True)


def probe_torch(_: Path) -> str:
    """CUDA as torch sees it, as JSON; each GPU with its bytes of memory."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append({"name": torch.cuda.get_device_name(index), "free": free, "total": total})
    return json.dumps({"cuda": torch.version.cuda, "gpus": gpus})


def probe_vllm(scratch: Path) -> str:
    """The model samples responses to prompts of some length."""
    config, model = _setting(scratch)

    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.types import Request, Sampling

    engine = RolloutEngine(model, config.cluster)
    requests = [Request(_text(PROMPT_LEN, seed), seed=seed) for seed in range(NUM_PROMPTS)]
    completions = dict(engine.generate(requests, Sampling(1.0, 1.0, max_new_tokens=4)))
    for completion in completions.values():
        if not completion.token_ids or not all(map(math.isfinite, completion.logprobs)):
            raise SystemExit(f"{MODEL} answers {completion}")
    if len(completions) != NUM_PROMPTS:
        raise SystemExit(f"{MODEL} answers {len(completions)} of {NUM_PROMPTS} prompts")
    return f"{MODEL} answers {NUM_PROMPTS} prompts on {_place(config)}"


def probe_deepspeed(scratch: Path) -> str:
    """The model takes one step on a response whose logits need several chunks."""
    config, model = _setting(scratch)

    from grpo_cli.training.batch import TrainingSequence
    from grpo_cli.training.logprobs import CHUNK_VALUES
    from grpo_cli.training.policy import Policy

    length = 1 + 2 * CHUNK_VALUES[config.cluster.device] // NUM_ENTRIES
    sequence = TrainingSequence(
        _text(PROMPT_LEN, seed=0), _text(length, seed=1), (-1.0,) * length, advantage=1.0, weight=1 / length
    )
    norm = Policy(model, config).update([[sequence]]).compute().get("policy/grad_norm", math.nan)
    if not norm > 0:  # nor a number at all
        raise SystemExit(f"the gradient's norm is {norm}")
    return f"{MODEL} takes a step on {_place(config)}"


def _text(length: int, seed: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(NUM_ENTRIES) for _ in range(length))


def _setting(scratch: Path):
    """The settings of a small run and its model, which is written to `scratch`, with this process as the only rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        **{"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    for name, value in {"OMP_WAIT_POLICY": "PASSIVE", **quiet}.items():
        os.environ.setdefault(name, value)

    import torch

    from grpo_cli.choices import Device, DType
    from grpo_cli.config.cluster import ClusterConfig, VLLMConfig
    from grpo_cli.config.model import ModelConfig
    from grpo_cli.config.train import TrainConfig

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    config = TrainConfig(
        model=ModelConfig(name="random", path=str(scratch)),
        cluster=ClusterConfig(
            device=Device.cuda if on_gpu else Device.cpu,
            dtype=DType.bf16 if on_gpu else DType.fp32,
            gradient_checkpointing=False,
            vllm=VLLMConfig(enforce_eager=True, kv_cache_gib=0.25),
        ),
    )

    from grpo_cli.data.random_base import write_model, write_tokenizer
    from grpo_cli.model import load_base_model
    from grpo_cli.training.engine import init_distributed

    init_distributed(config.cluster)
    write_tokenizer(scratch, num_entries=NUM_ENTRIES)
    write_model(scratch, num_rows=NUM_ROWS, end_id=256)
    return config, load_base_model(config.model, needed_len=1024)


def _place(config) -> str:
    return "the GPU" if config.cluster.device == "cuda" else "the CPU"


if __name__ == "__main__":
    main(sys.argv[1])
