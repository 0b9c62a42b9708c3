"""The stages of gpu_check.py for training, which need torch >= 2.11 and DeepSpeed but not vLLM.

S tokens of a row, N response tokens, Q query heads, K key heads, D their size, H hidden size, V vocabulary.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import torch
from bench_gpu import peak_flops, shape_of, training_flops
from gpu_stage import Scale, median_s, peak_gib_of, seconds, tell
from r1zero_loop import composed, synthetic
from relay import gpu_gib
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, Qwen2Config
from workload import PROMPT_TOKENS

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.model import load_base_model
from grpo_cli.planner.memory import plan_memory
from grpo_cli.training.attention import PACKED_ATTENTION, in_one_call, one_by_one
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.logprobs import CHUNK_VALUES, TokenLogprobs
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy

Attend = Callable[..., Tensor]  # an attention function of grpo_cli/training/attention.py
BF16 = torch.bfloat16
HEAD_SIZE = 128
MOST_MEAN_DIFFERENCE = 0.05  # of log-probabilities in bf16; if sequences saw each other, it would be much larger
EVERY = 8  # every 8th sequence is enough to reach the memory peak


def deepspeed(scale: Scale) -> None:
    """Let the built-in model take one step."""
    cluster = ClusterConfig(
        device=Device(scale.device),
        dtype=DType.bf16,
        zero_stage=2,
        gradient_checkpointing=False,
    )
    config = TrainConfig(model=ModelConfig(name="tiny", path="builtin:make_zero"), cluster=cluster)
    init_distributed(cluster)
    policy = rl_policy(load_base_model(config.model, needed_len=64), config)
    sequences = _sequences([12, 5, 9], vocab_size=40)
    tally = {}
    tell("first update, s", seconds(lambda: tally.update(policy.update([sequences]).compute())))
    _tell_norm(tally)


def attention(scale: Scale) -> None:
    """Compare one attention call per row with one call per sequence: results and time; then in a model."""
    heads, groups = scale.shape["num_attention_heads"], scale.shape["num_key_value_heads"]
    lengths = scale.row_lengths
    torch.manual_seed(0)
    # The memory layout of a model: by position, then viewed by head.
    query, key, value = (
        torch.randn(1, sum(lengths), number, HEAD_SIZE, device=scale.device, dtype=BF16).transpose(1, 2)
        for number in (heads, groups, groups)
    )
    direction = torch.randn_like(query).transpose(1, 2)
    starts_B = torch.tensor([0, *lengths], device=scale.device).cumsum(0).to(torch.int32)
    module = SimpleNamespace(num_key_value_groups=heads // groups, is_causal=True)
    options = {"sequence_lengths": lengths, "sequence_starts": starts_B}

    def output_and_gradients(attend: Attend, dtype: torch.dtype, window: int | None) -> list[Tensor]:
        inputs = [each.detach().to(dtype).requires_grad_() for each in (query, key, value)]
        out = attend(module, *inputs, sliding_window=window, **options)
        return [out.detach(), *torch.autograd.grad(out, inputs, direction.to(dtype))]

    tell("row", f"{len(lengths)} sequences, {sum(lengths)} tokens, longest {max(lengths)}, {heads}/{groups} heads")
    for name, attend in (("one call per sequence", one_by_one), *[("varlen_attn", in_one_call)] * scale.is_on_gpu):
        for window in (None, max(lengths) // 4):
            exact = output_and_gradients(one_by_one, torch.float32, window)
            got = output_and_gradients(attend, BF16, window)
            difference = max(_relative(part, wanted) for part, wanted in zip(got, exact, strict=True))
            case = f"a window of {window}, " if window else ""
            tell(f"{name}: {case}largest difference from float32, of the largest value", difference)
            if not difference < 0.05:
                raise ValueError(f"{name}: {case}differs from float32 by {difference:.2g} of the largest value")
        with torch.no_grad():
            forward = median_s(partial(attend, module, query, key, value, **options), scale.repeats)
        tell(f"{name}: forward, ms", 1000 * forward)
        both = median_s(partial(output_and_gradients, attend, BF16, None), scale.repeats)
        tell(f"{name}: forward and backward, ms", 1000 * both)
    _row_in_a_model(scale, lengths)


def _row_in_a_model(scale: Scale, lengths: Sequence[int]) -> None:
    """Compare the trainer's log-probabilities of sequences in one row with those of each sequence alone."""
    network = _network(scale, num_layers=2)
    tokens_S = torch.randint(scale.shape["vocab_size"], (sum(lengths),), device=scale.device)
    predicts = [torch.arange(length, device=scale.device) < length - 1 for length in lengths]
    with torch.no_grad():
        together = network(tokens_S, tuple(lengths), torch.cat(predicts))[0]
        alone = [
            network(tokens, (len(tokens),), of_sequence)[0]
            for tokens, of_sequence in zip(tokens_S.split(list(lengths)), predicts, strict=True)
        ]
    difference = (together - torch.cat(alone)).abs().mean().item()
    tell("log-probabilities in a row and alone: mean difference", difference)
    if not difference < MOST_MEAN_DIFFERENCE:
        raise ValueError(f"sequences in one row see each other: their log-probabilities differ by {difference:.2g}")


def logprobs(scale: Scale) -> None:
    """Time and memory of log-probabilities over the whole vocabulary, for several chunk sizes."""
    network = _network(scale, num_layers=1)
    vocabulary, hidden = scale.shape["vocab_size"], scale.shape["hidden_size"]
    lengths = scale.row_lengths
    tokens_S = torch.randint(vocabulary, (sum(lengths),), device=scale.device)
    predicts_S = torch.cat([torch.arange(length, device=scale.device) < length - 1 for length in lengths])
    num_predicted = int(predicts_S.sum())
    tell("row", f"{num_predicted} tokens, one layer, vocabulary {vocabulary}")

    def forward() -> Tensor:
        return network(tokens_S, tuple(lengths), predicts_S)[0]

    for values in scale.chunk_values:
        with patch.dict(CHUNK_VALUES, {scale.device: values}):
            name = f"chunks of 2^{round(math.log2(values))} logits"
            both = median_s(lambda: forward().sum().backward(), scale.repeats)
            with torch.no_grad():
                tell(f"{name}: forward alone, ms", 1000 * median_s(forward, scale.repeats))
            tell(f"{name}: forward and backward, ms", 1000 * both)
            if scale.is_on_gpu:
                peak = peak_gib_of(lambda: forward().sum().backward())
                tell(f"{name}: peak in addition to weights and gradients, GiB", peak)
    tell("matrix products of the output layer, TFLOP", 6e-12 * num_predicted * hidden * vocabulary)
    _compare_implementations(scale, max(1, min(num_predicted, 2**27 // vocabulary)))


def _compare_implementations(scale: Scale, size: int) -> None:
    """Time and memory of one chunk, forward and backward, for several implementations."""
    vocabulary, hidden = scale.shape["vocab_size"], scale.shape["hidden_size"]
    hidden_NH = torch.randn(size, hidden, device=scale.device, dtype=BF16, requires_grad=True)
    weight_VH = (torch.randn(vocabulary, hidden, device=scale.device, dtype=BF16) / hidden**0.5).requires_grad_()
    targets_N1 = torch.randint(vocabulary, (size, 1), device=scale.device)

    def log_softmax(hidden_NH: Tensor, weight_VH: Tensor) -> Tensor:
        return functional.linear(hidden_NH, weight_VH).float().log_softmax(-1).gather(-1, targets_N1)

    def logsumexp(hidden_NH: Tensor, weight_VH: Tensor) -> Tensor:
        logits_NV = functional.linear(hidden_NH, weight_VH).float()
        return logits_NV.gather(-1, targets_N1) - logits_NV.logsumexp(-1, keepdim=True)

    ways = {"log_softmax": log_softmax, "logsumexp": logsumexp}
    if scale.is_on_gpu:
        ways["logsumexp, compiled"] = torch.compile(logsumexp)  # last: it needs a C compiler
    for name, way in ways.items():

        def both(way=way) -> None:
            torch.autograd.grad(way(hidden_NH, weight_VH).sum(), (hidden_NH, weight_VH))

        tell(f"a chunk of {size} tokens, {name}: forward and backward, ms", 1000 * median_s(both, scale.repeats))
        if scale.is_on_gpu:
            tell(f"a chunk of {size} tokens, {name}: peak, GiB", peak_gib_of(both))


def update(scale: Scale) -> None:
    """Time an update on all responses of a step, without gradient checkpointing."""
    _timed_update(scale, scale.workload.lengths, "cluster.gradient_checkpointing=false")


def checkpointing(scale: Scale) -> None:
    """The same with checkpointing on some responses, which reach the same peak; then time moving the states."""
    lengths = scale.workload.lengths[::EVERY]
    offload = f"cluster.offload_during_rollout={str(scale.is_on_gpu).lower()}"
    policy = _timed_update(scale, lengths, "cluster.gradient_checkpointing=true", offload)
    if not scale.is_on_gpu:
        policy.offload()
        return
    for number in ("first", "second"):
        tell(f"moving the states to the CPU, the {number} time, s", seconds(policy.offload))
        tell(f"... left on the GPU in tensors, GiB ({number})", torch.cuda.memory_allocated() / 2**30)
        pinned = torch.cuda.host_memory_stats().get("allocated_bytes.current", math.nan)
        tell(f"... pinned in CPU memory, GiB ({number})", pinned / 2**30)
        tell(f"moving them back, the {number} time, s", seconds(lambda: next(policy.named_weights())))


def _timed_update(scale: Scale, lengths: Sequence[int], *overrides: str) -> Policy:
    """Report seconds, MFU, gradient norm and memory of an update, after one that warms up."""
    task = synthetic(scale.workload, scale.folder, device=scale.device, **scale.shape)
    config = composed([*task, *scale.overrides, *overrides], scale.folder / "unused")
    init_distributed(config.cluster)
    model = load_base_model(config.model, config.rollout.longest_sequence)
    loaded = {}
    tell("loading, s", seconds(lambda: loaded.update(policy=rl_policy(model, config))))
    policy = loaded["policy"]
    sequences = _sequences(lengths, model.vocab_size)
    policy.update([sequences[::EVERY]])
    if scale.is_on_gpu:
        torch.cuda.reset_peak_memory_stats()
    tally = {}
    taken = seconds(lambda: tally.update(policy.update([sequences]).compute()))
    num_tokens = sum(s.length for s in sequences)
    flops = training_flops(lengths, scale.shape) / taken
    tell("update", f"{len(sequences)} responses, {num_tokens} tokens, {', '.join(overrides)}")
    tell("update, s", taken)
    tell("... tokens/s", num_tokens / taken)
    tell("... model TFLOP/s", flops / 1e12)
    if scale.is_on_gpu and (peak := peak_flops(torch.cuda.get_device_name())):
        tell("... MFU", f"{flops / peak:.1%}")
    _tell_norm(tally)
    planned = plan_memory(config, shape_of(scale.shape)).training / 2**30
    tell("peak estimated by r1zero plan, including the allowance for CUDA, GiB", planned)
    if scale.is_on_gpu:
        tell("peak in tensors (max_memory_allocated), GiB", torch.cuda.max_memory_allocated() / 2**30)
        tell("peak reserved by torch, GiB", torch.cuda.max_memory_reserved() / 2**30)
        tell("in use on the GPU afterwards, GiB", gpu_gib())
    return policy


def _tell_norm(tally: dict) -> None:
    norm = tally.get("policy/grad_norm", math.nan)
    tell("gradient's norm", norm)
    if not norm > 0 or not math.isfinite(norm):
        raise ValueError(f"the gradient's norm is {norm}")


def _relative(got: Tensor, wanted: Tensor) -> float:
    return ((got.float() - wanted).abs().max() / wanted.abs().max()).item()


def _sequences(lengths: Sequence[int], vocab_size: int) -> list[TrainingSequence]:
    """Sequences of random tokens with positive and negative advantages; all tokens have the same weight."""
    draw = random.Random(0)
    ids = range(vocab_size)
    return [
        TrainingSequence(
            tuple(draw.choices(ids, k=PROMPT_TOKENS)),
            tuple(draw.choices(ids, k=length)),
            advantage=(-1.0) ** number * (1 + number % 3),
            weight=1 / sum(lengths),
        )
        for number, length in enumerate(lengths)
    ]


def _network(scale: Scale, num_layers: int) -> TokenLogprobs:
    """A model with few layers and random weights, wrapped as in the trainer."""
    torch.manual_seed(0)
    config = Qwen2Config(**scale.shape | {"num_hidden_layers": num_layers}, tie_word_embeddings=True)
    with torch.device(scale.device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=BF16)
    network = TokenLogprobs(model, temperature=1.0, vocab_size=scale.shape["vocab_size"])
    network.packs = True
    return network
