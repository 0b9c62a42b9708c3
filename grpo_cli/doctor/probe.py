"""What doctor runs in a process of its own: `python -m grpo_cli.doctor.probe torch|vllm|deepspeed`."""

import json
import math
import os
import socket
import sys

from grpo_cli.doctor.process import SEEN

PROMPT = (23, 15, 16, 12, 6)  # of the built-in task


def main(name: str) -> None:
    seen = {"torch": probe_torch, "vllm": probe_vllm, "deepspeed": probe_deepspeed}[name]()
    print(f"\n{SEEN}{seen}", flush=True)


def probe_torch() -> str:
    """CUDA as torch sees it, as JSON; each GPU with its bytes of memory."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append({"name": torch.cuda.get_device_name(index), "free": free, "total": total})
    return json.dumps({"cuda": torch.version.cuda, "gpus": gpus})


def probe_vllm() -> str:
    """The built-in model answers a problem."""
    config, model = _setting()

    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.types import Request, Sampling

    engine = RolloutEngine(model, config.cluster)
    ((_, completion),) = engine.generate([Request(PROMPT, seed=0)], Sampling(1.0, 1.0, max_new_tokens=32))
    if not completion.token_ids or not all(map(math.isfinite, completion.logprobs)):
        raise SystemExit(f"the built-in model answers {completion}")
    return f"the built-in model generates on {_place(config)}"


def probe_deepspeed() -> str:
    """The built-in model takes one step."""
    config, model = _setting()

    from grpo_cli.training.batch import TrainingSequence
    from grpo_cli.training.policy import Policy

    sequence = TrainingSequence(PROMPT, (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)
    norm = Policy(model, config).update([[sequence]]).compute().get("policy/grad_norm", math.nan)
    if not norm > 0:  # nor a number at all
        raise SystemExit(f"the gradient's norm is {norm}")
    return f"the built-in model takes a step on {_place(config)}"


def _setting():
    """The settings of a small run and its model, with this process as the only rank."""
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

    from grpo_cli.config.schema import ClusterConfig, Device, DType, ModelConfig, TrainConfig, VLLMConfig

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    config = TrainConfig(
        model=ModelConfig(name="tiny", path="builtin:make_zero"),
        cluster=ClusterConfig(
            device=Device.cuda if on_gpu else Device.cpu,
            dtype=DType.bf16 if on_gpu else DType.fp32,
            gradient_checkpointing=False,
            vllm=VLLMConfig(enforce_eager=True, kv_cache_gib=0.25, max_num_seqs=8),
        ),
    )

    from grpo_cli.model import load_base_model
    from grpo_cli.training.engine import init_distributed

    init_distributed(config.cluster)
    return config, load_base_model(config.model, needed_len=64)


def _place(config) -> str:
    return "the GPU" if config.cluster.device == "cuda" else "the CPU"


if __name__ == "__main__":
    main(sys.argv[1])
