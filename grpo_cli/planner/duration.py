"""How long a step takes, by a roofline model: FLOPs divided by the peak, bytes divided by the bandwidth.

The shares of the peaks are typical for such kernels, not measured for this program on a GPU; the constants for CPUs are
fitted to steps of models with 0.17 M and 2.65 M parameters. Left out: rewards that take longer than generation,
evaluation, checkpoints, and waiting for the slowest rank.
"""

import math
from dataclasses import dataclass, replace

from grpo_cli.choices import Device, KLPlacement
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import Hardware
from grpo_cli.planner.batches import num_at_once, plan_batches
from grpo_cli.planner.flops import Work, forward_flops, layer_flops, output_flops, training_flops
from grpo_cli.planner.memory import BYTES, LOGITS_CHUNK, Memory, activation_bytes, plan_memory
from grpo_cli.planner.shape import num_adapter_parameters, num_critic_parameters, num_parameters

MATRIX_SHARE = 0.6  # of the peak: large matrix products in bf16 reach 0.6 to 0.7, attention 0.4 to 0.6
BANDWIDTH_SHARE = 0.7  # of the memory's bandwidth: kernels that only read and write reach 0.6 to 0.9
LINK_SHARE = 0.7  # of the bandwidth of a link: large NCCL collectives
NODE_LINK = 50e9  # bytes/s per GPU between nodes: one 400 Gb/s adapter each
HOST_LINK = 25e9  # bytes/s between a GPU and CPU memory (16 lanes of PCIe 4), and for a rank's share of CPU memory
# vLLM's Python code per decoding step, and per sequence in it (scheduler, sampler, output). A GPU computes at the same
# time; a CPU does not, and its figure includes the arithmetic of the sampler.
STEP_S = {Device.cuda: 2e-3, Device.cpu: 3e-3}
SEQUENCE_S = {Device.cuda: 25e-6, Device.cpu: 75e-6}
KEPT_PASSES = 2  # in a forward pass, what the backward pass needs is written once and read once
LOGITS_PASSES = 10  # over the float32 logits in a forward pass: scaling, softmax, entropy, gathering
ADAM_BYTES = 34  # read and written per parameter: weight, gradient and two moments in fp32, and the new weight
ATTENTION_CALL_S = 5e-5  # per layer and sequence of a forward pass on a CPU, where each is one attention call
TENSOR_S = 4e-4  # vLLM's Python code for each weight tensor of a sync
TENSORS_A_LAYER = 12
SLEEP_S = 1.0  # vLLM's sleep and wake together: mapping and unmapping its memory
ASSUMED_RESPONSE = 1 / 2  # of rollout.max_new_tokens, on average
ASSUMED_PROMPT = 1 / 4  # of rollout.max_prompt_tokens, on average


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens per sequence."""

    prompt: float  # mean
    response: float  # mean
    longest: float  # response
    trained: float = 1.0  # share of the tokens that are trained on: responses with advantage 0 are not


@dataclass(frozen=True)
class Seconds:
    """The parts of a step, on the rank that needs most."""

    generation: float
    tail: float  # the part of generation in which only responses longer than the mean are left
    passes: float  # forward and backward
    optimizer: float
    exchange: float  # of weights and gradients between ranks
    swap: float  # sleep and wake, and moves to CPU memory and back
    sync: float  # of the weights into vLLM

    @property
    def update(self) -> float:
        """What the metric time/update measures."""
        return self.passes + self.optimizer + self.exchange + self.swap

    def step(self, max_staleness: int = 0) -> float:
        """One part after the other; with staleness, the next responses are generated during the update."""
        together = self.generation + self.update if max_staleness == 0 else max(self.generation, self.update)
        return together + self.sync


def assumed_lengths(config: TrainConfig) -> Lengths:
    """Lengths for a run that has not started."""
    rollout = config.rollout
    return Lengths(
        prompt=ASSUMED_PROMPT * rollout.max_prompt_tokens,
        response=ASSUMED_RESPONSE * rollout.max_new_tokens,
        longest=rollout.max_new_tokens,
    )


def plan_seconds(
    config: TrainConfig,
    shape: ShapeConfig,
    hardware: Hardware,
    lengths: Lengths,
    teacher: ShapeConfig | None = None,
) -> Seconds:
    """The seconds of one step. `hardware` is that of one rank; `config` has passed check_train."""
    passes, num_microbatches = _passes(config, shape, teacher, hardware, lengths)
    generation = _generation(config, shape, hardware, lengths)
    return Seconds(
        generation=generation,
        tail=generation - _generation(config, shape, hardware, replace(lengths, longest=lengths.response)),
        passes=passes,
        optimizer=_optimizer(config, shape, hardware),
        exchange=_exchange(config, shape, hardware, num_microbatches),
        swap=_swap(config.cluster, plan_memory(config, shape, teacher)),
        sync=_sync(config, shape, hardware),
    )


def _generation(config: TrainConfig, shape: ShapeConfig, hardware: Hardware, lengths: Lengths) -> float:
    """Each decoding step reads the weights and all sequences' keys and values, and adds a token to each."""
    cluster, memory, batches = config.cluster, plan_memory(config, shape), plan_batches(config)
    sharers, on_gpu = cluster.vllm.tensor_parallel_size, cluster.device == Device.cuda
    prompt, response = lengths.prompt, lengths.response
    requests = batches.completions_per_rank * sharers
    at_once = min(requests, num_at_once(cluster))
    if memory.kv_cache is not None:
        at_once = min(at_once, max(1, int(memory.kv_cache / (memory.kv_token * (prompt + response)))))
    tokens = requests * response
    steps = (requests / at_once - 1) * response + lengths.longest  # the last wave includes the longest response

    # On a GPU, an engine caches the prompt of a group. A split spreads each group over all engines.
    group = config.rollout.group_size / (cluster.engine_ranks / sharers if cluster.rollout_ranks else 1)
    prefilled = requests / (max(1.0, group) if on_gpu else 1)
    whole, prompts = Work.of([(prompt, response)]) * requests, Work.of([(prompt, 0)]) * requests
    decode = Work(tokens, tokens, whole.squares - prompts.squares)
    prefill = prompts * (prefilled / requests)
    peak, bandwidth = MATRIX_SHARE * hardware.peak_flops, BANDWIDTH_SHARE * hardware.bandwidth
    traffic = steps * memory.vllm_weights + tokens * (prompt + response / 2) * memory.kv_token
    decode_s = max(traffic / bandwidth, forward_flops(shape, decode) / sharers / peak)
    prefill_s = forward_flops(shape, prefill) / sharers / peak
    host_s = steps * STEP_S[cluster.device] + tokens * SEQUENCE_S[cluster.device]
    return prefill_s + (max(decode_s, host_s) if on_gpu else decode_s + host_s)


def _passes(
    config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None, hardware: Hardware, lengths: Lengths
) -> tuple[float, int]:
    """Seconds of forward and backward passes, and the micro-batches of each optimizer step."""
    cluster, algorithm, batches = config.cluster, config.algorithm, plan_batches(config)
    sequences = batches.completions_per_trainer * lengths.trained
    work = Work.of([(lengths.prompt, lengths.response)]) * sequences
    tokens = work.tokens
    epochs, recomputes = algorithm.num_epochs, cluster.gradient_checkpointing
    forwarded = [shape] * (batches.steps_per_rollout > 1)  # the old log-probabilities, for the ratios
    if algorithm.beta > 0:
        # The reference's log-probabilities; with KL in the reward, both are computed once more.
        in_reward = algorithm.kl.placement != KLPlacement.loss
        forwarded += [shape] * in_reward + [teacher or shape] * (1 + in_reward)
    has_adapters = num_adapter_parameters(shape, config.model.lora) > 0
    chunks = work.responses * shape.vocab_size > LOGITS_CHUNK[cluster.device]  # more than one: each is computed twice
    flops = epochs * (
        training_flops(shape, work, has_adapters=has_adapters)
        + recomputes * layer_flops(shape, work)
        + chunks * output_flops(shape, work)
    ) + sum(forward_flops(each, work) for each in forwarded)
    # In forward passes of layers and output; a backward pass reads and writes twice as much.
    passes = [(shape, epochs * (3 + recomputes), epochs * (3 + chunks)), *((each, 1, 1) for each in forwarded)]
    traffic = calls = 0.0
    for each, of_layers, of_output in passes:
        activations = activation_bytes(each, cluster.dtype, work.tokens, checkpointing=False)
        traffic += KEPT_PASSES * of_layers * activations
        traffic += 4 * LOGITS_PASSES * of_output * each.vocab_size * work.responses
        calls += of_layers * each.num_layers * sequences if cluster.device == Device.cpu else 0
    if config.critic:  # its values of all responses, and its update
        of_critic = Work.of([(lengths.prompt, lengths.response)]) * batches.completions_per_trainer
        layer_passes = epochs * (3 + recomputes) + 1
        activations = activation_bytes(shape, cluster.dtype, of_critic.tokens, checkpointing=False)
        flops += layer_passes * layer_flops(shape, of_critic)
        traffic += KEPT_PASSES * layer_passes * activations
        is_on_cpu = cluster.device == Device.cpu
        calls += layer_passes * shape.num_layers * batches.completions_per_trainer if is_on_cpu else 0
    seconds = (
        flops / (MATRIX_SHARE * hardware.peak_flops)
        + traffic / (BANDWIDTH_SHARE * hardware.bandwidth)
        + calls * ATTENTION_CALL_S
    )
    num_microbatches = math.ceil(tokens / algorithm.num_minibatches / cluster.tokens_per_microbatch)
    return seconds, max(1, min(num_microbatches, math.ceil(sequences / algorithm.num_minibatches)))


def _optimizer(config: TrainConfig, shape: ShapeConfig, hardware: Hardware) -> float:
    cluster, steps = config.cluster, plan_batches(config).steps_per_rollout
    trained = num_adapter_parameters(shape, config.model.lora) or num_parameters(shape)
    trained += num_critic_parameters(shape) if config.critic else 0
    per_rank = trained / (cluster.train_ranks if cluster.zero_stage >= 1 else 1)
    is_on_cpu = cluster.device == Device.cuda and cluster.offload_optimizer
    return steps * ADAM_BYTES * per_rank / (HOST_LINK if is_on_cpu else BANDWIDTH_SHARE * hardware.bandwidth)


def _exchange(config: TrainConfig, shape: ShapeConfig, hardware: Hardware, num_microbatches: int) -> float:
    """Below stage 3, the gradients of each micro-batch and the weights of each step cross the links. At stage 3 the
    weights also cross twice per micro-batch: ZeRO, arXiv:1910.02054, section 7.
    """
    cluster, steps = config.cluster, plan_batches(config).steps_per_rollout
    width, parameters = BYTES[cluster.dtype], num_parameters(shape)
    trained = num_adapter_parameters(shape, config.model.lora) or parameters
    if config.critic:
        trained, parameters = trained + num_critic_parameters(shape), parameters + num_critic_parameters(shape)
    per_step = 0 if cluster.zero_stage == 3 else width * trained
    per_microbatch = width * trained + (2 * width * parameters if cluster.zero_stage == 3 else 0)
    link = NODE_LINK if cluster.nodes > 1 else LINK_SHARE * hardware.link
    crossing = 1 - 1 / cluster.train_ranks
    return crossing * steps * (per_step + num_microbatches * per_microbatch) / link


def _swap(cluster: ClusterConfig, memory: Memory) -> float:
    if cluster.device == Device.cpu:
        return 0.0
    moved = 2 * memory.moved_out + (2 * memory.reference if cluster.offload_reference else 0)
    if cluster.rollout_ranks:
        return moved / HOST_LINK  # no engine sleeps
    if cluster.vllm.sleep_level == 1:
        moved += 2 * memory.vllm_weights
    return moved / HOST_LINK + (SLEEP_S if cluster.vllm.sleep_level else 0.0)


def _sync(config: TrainConfig, shape: ShapeConfig, hardware: Hardware) -> float:
    """All weights are read and written; sharded weights are gathered first, and sent if other ranks generate."""
    cluster = config.cluster
    size = BYTES[cluster.dtype] * num_parameters(shape)
    link = NODE_LINK if cluster.nodes > 1 else LINK_SHARE * hardware.link
    crossings = (cluster.zero_stage == 3 and cluster.train_ranks > 1) + (cluster.rollout_ranks > 0)
    return (
        2 * size / (BANDWIDTH_SHARE * hardware.bandwidth)
        + crossings * size / link
        + TENSOR_S * TENSORS_A_LAYER * shape.num_layers
    )
