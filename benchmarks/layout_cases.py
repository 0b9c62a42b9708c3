"""The runs that `rollout_layouts.py` simulates: model, GPUs, responses and their lengths."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from grpo_cli.config.model import ShapeConfig
from grpo_cli.hardware import Hardware, find_gpu
from grpo_cli.planner.shape import attention_widths, num_parameters

PROMPT = 256  # tokens
WIDTH = 2  # bytes of a value, bf16


@dataclass(frozen=True)
class Model:
    weights: float  # bytes
    active: float  # parameters that a token is multiplied with
    attention: float  # FLOPs of a forward pass for each pair of a token and one before it
    kv_token: float  # bytes of a token in the KV cache

    @classmethod
    def of(cls, shape: ShapeConfig) -> "Model":
        queries, keys = attention_widths(shape)
        parameters = num_parameters(shape)
        return cls(WIDTH * parameters, parameters, 4 * shape.num_layers * queries, WIDTH * 2 * shape.num_layers * keys)


@dataclass(frozen=True)
class Case:
    """`mean` and `sigma` describe the log-normal lengths before they are cut at `cap`."""

    name: str
    gpus: int
    gpu: Hardware
    model: Model
    responses: int  # of a step
    mean: float
    cap: int
    sigma: float = 1.0
    group_size: int = 8
    engine_gpus: int = 1  # that share an engine
    minibatches: int = 16
    training_share: float = 0.4  # of the GPU's peak, recomputation included
    colocated_memory: float = 0.5  # share of a GPU for vLLM, if it also trains
    kept: tuple[int, ...] = ()  # lengths of a run, to draw from instead
    generating: int | None = None  # GPUs, as published
    is_partial: bool = False
    measured: tuple[float, float] | None = None  # published seconds of generation and update if every GPU does both
    published: str = ""  # the split's speed divided by that of colocated GPUs

    def lengths(self, draw: random.Random) -> Iterator[int]:
        mu = math.log(self.mean) - self.sigma**2 / 2
        while True:
            length = draw.choice(self.kept) if self.kept else round(draw.lognormvariate(mu, self.sigma))
            yield min(self.cap, max(1, length))


def _gpu(name: str) -> Hardware:
    found = find_gpu(name)
    assert found, name
    return found


QWEN_3B = Model.of(ShapeConfig(36, 2048, 11008, 16, 2, 128, 151_936, True, 32_768))
QWEN_7B = Model.of(ShapeConfig(28, 3584, 18944, 28, 4, 128, 152_064, False, 32_768))
LLAMA_8B = Model.of(ShapeConfig(32, 4096, 14336, 32, 8, 128, 128_256, False, 131_072))
QWEN_30B_A3B = Model(weights=WIDTH * 30.5e9, active=3.3e9, attention=4 * 48 * 4096, kv_token=WIDTH * 2 * 48 * 4 * 128)
H20 = Hardware("H20", 148e12, 4.0e12, 450e9, 96)

# 512 GPUs get 8,192 responses, as in a step of DeepSeek-R1-Zero (arXiv:2501.12948); the others 64 for each GPU.
SEVEN_B = Case("", 8, _gpu("H100"), QWEN_7B, responses=512, mean=4000, cap=16_384)
SIZES = (SEVEN_B, replace(SEVEN_B, gpus=64, responses=4096), replace(SEVEN_B, gpus=512, responses=8192))

# The lengths of NeMo-RL have the published means after the cut. Those of verl and of verl#2231 are assumed.
LLAMA = Case(
    "NeMo-RL 0.4, Llama 3.1 8B, 16 H100",
    16,
    _gpu("H100"),
    LLAMA_8B,
    responses=2048,
    mean=1170,
    cap=4096,
    minibatches=4,
    colocated_memory=0.7,
    generating=8,
    published="1.31",
)
NEMO_MOE = replace(
    LLAMA,
    name="NeMo-RL 0.6, Qwen3-30B-A3B, 32 H100",
    gpus=32,
    model=QWEN_30B_A3B,
    mean=7300,
    engine_gpus=2,
    training_share=0.2,
    generating=16,
    published="1.26",
)
VERL = Case(
    "verl, one step off, Qwen2.5-Math-7B, 16 H20",
    16,
    H20,
    QWEN_7B,
    responses=512 * 12,
    mean=1000,
    cap=20_480,
    engine_gpus=2,
    colocated_memory=0.7,
    generating=4,
    measured=(321, 88 + 286),
    published="1.23 to 1.40",
)
VERL_ASYNC = replace(
    VERL,
    name="verl, fully asynchronous, Qwen2.5-Math-7B, 32 H20",
    gpus=32,
    responses=512 * 16,
    mean=1200,
    cap=28_672,
    generating=16,
    is_partial=True,
    measured=(357, 108 + 270),
    published="1.70 to 2.66",
)
PUBLISHED = (
    Case(
        "verl#2231, Qwen2.5-3B, 8 A100",
        8,
        _gpu("A100"),
        QWEN_3B,
        responses=1024,
        mean=300,
        cap=1024,
        minibatches=4,
        generating=4,
        published="below 1",
    ),
    VERL,
    VERL_ASYNC,
    replace(
        VERL_ASYNC,
        name="the same, 128 H20",
        gpus=128,
        generating=64,
        measured=(178, 54 + 114),
        published="2.35 to 2.67",
    ),
    LLAMA,
    NEMO_MOE,
    replace(
        NEMO_MOE,
        name="the same, 16 GB200",
        gpus=16,
        gpu=_gpu("B200"),
        engine_gpus=1,
        generating=8,
        published="0.73",
    ),
)
