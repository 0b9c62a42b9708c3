"""The memory of one rank, in bytes. Memory that libraries use internally is a fixed allowance."""

from dataclasses import dataclass

from grpo_cli.choices import Device, DType, KLPlacement
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import find_gpu
from grpo_cli.planner.batches import plan_batches
from grpo_cli.planner.shape import attention_widths, num_adapter_parameters, num_critic_parameters, num_parameters

GIB = 2**30
BYTES = {DType.fp32: 4, DType.bf16: 2}
LOGITS_CHUNK = {Device.cpu: 2**25, Device.cuda: 2**27}  # CHUNK_VALUES of grpo_cli/training/logprobs.py
LOGITS_BYTES = 16  # per value of a chunk: logits, log-probabilities and two temporary copies, all float32
ZERO_BUCKET = 5 * 10**8  # DeepSpeed's reduce_bucket_size: gradient values waiting to be reduced
ZERO_LIVE = 10**9  # DeepSpeed's stage3_max_live_parameters: weights that ZeRO-3 gathers at the same time
ZERO_SUBGROUP = 10**9  # DeepSpeed's sub_group_size: values that ZeRO-3's optimizer updates together
CUDA_ALLOWANCE = 2 * GIB  # the CUDA context, NCCL and fragmentation
VLLM_ALLOWANCE = 2 * GIB  # vLLM's activations and sampler, part of its share
# Kept by vLLM while it sleeps: compiled kernels, cuBLAS workspaces and input buffers, but no CUDA graphs.
VLLM_ASLEEP = 1 * GIB


@dataclass(frozen=True)
class Gradients:
    """The gradients of the trained parameters on one rank."""

    held: float = 0.0  # while micro-batches are summed
    at_step: float = 0.0  # copies for the optimizer, after the activations are freed
    stays: bool = False  # DeepSpeed keeps the buffer of `held` between steps


@dataclass(frozen=True)
class Memory:
    """The parts and peaks of one rank."""

    weights: float
    gradients: Gradients
    optimizer: float
    reference: float
    critic: float  # weights, optimizer, and gradients that stay
    zero_buffers: float  # gathered weights and gradients waiting to be reduced, next to the activations
    activations: float  # of the largest micro-batch
    activations_kept: float  # the same without gradient checkpointing
    logits: float
    output_gradient: float  # of the output layer: the sum so far in fp32, and that of a chunk of tokens
    vllm_weights: float
    kv_cache: float | None  # None if the memory of the GPU is unknown
    kv_token: float  # of one token in the KV cache
    moved_out: float  # trainer states in CPU memory while vLLM generates
    cpu: float  # CPU memory for what the GPU moves there
    cpu_start: float  # CPU memory while the model is loaded
    start: float  # while the model is sharded; 0 without sharding
    rollout: float  # while vLLM generates
    training: float  # peak while the trainer works
    sync: float  # while vLLM receives the weights, before it has a KV cache

    @property
    def phases(self) -> dict[str, float]:
        phases = {
            "The start": self.start,
            "The rollout": self.rollout,
            "Training": self.training,
            "The weight sync": self.sync,
        }
        return {name: peak for name, peak in phases.items() if peak}


def plan_memory(config: TrainConfig, shape: ShapeConfig, teacher: ShapeConfig | None = None) -> Memory:
    """The peaks of one rank; `config` has passed check_train. The reference is the teacher, if there is one.

    If ranks only generate or only train, each phase has the peak of the kind that needs more: the rollout that of an
    engine, training that of a trainer.

    Weights bP, and of Adam 12P (master weights and two moments, in fp32) are divided by N from stage 3 and 1 on: ZeRO,
    arXiv:1910.02054, section 5. In fp32, stages 0 and 3 need no master weights. A critic is counted with the shape of
    the model. It never trains at the same time as the policy, whose output layer needs more memory.
    """
    cluster, ranks, stage = config.cluster, config.cluster.train_ranks, config.cluster.zero_stage
    on_gpu = cluster.device == Device.cuda
    is_split = cluster.rollout_ranks > 0
    width = BYTES[cluster.dtype]
    parameters, adapters = num_parameters(shape), num_adapter_parameters(shape, config.model.lora)
    trained = adapters or parameters
    offloads_optimizer = on_gpu and cluster.offload_optimizer
    moves_out = on_gpu and cluster.offload_during_rollout and not is_split
    sleeps = on_gpu and cluster.vllm.sleep_level > 0 and not is_split
    tokens = plan_batches(config).microbatch_tokens

    weights = width * (parameters + adapters) / (ranks if stage == 3 else 1)
    gradients, optimizer = plan_gradients(cluster, trained), plan_optimizer(cluster, trained)
    critic_parameters = num_critic_parameters(shape) if config.critic else 0
    critic_gradients = plan_gradients(cluster, critic_parameters)
    critic_weights = width * critic_parameters / (ranks if stage == 3 else 1)
    critic = critic_weights + plan_optimizer(cluster, critic_parameters)
    critic += critic_gradients.held if critic_gradients.stays else 0.0
    # With adapters, the reference is the model without them. It is not sharded.
    has_reference = config.algorithm.beta > 0 and (teacher is not None or not adapters)
    reference = float(width * num_parameters(teacher or shape)) if has_reference else 0.0
    zero_buffers = 0.0
    if on_gpu:  # on a CPU, a page that is never written takes no memory
        zero_buffers += width * ZERO_BUCKET if stage >= 1 else 0.0
        zero_buffers += width * min(ZERO_LIVE, parameters) if stage == 3 else 0.0
    activations = activation_bytes(shape, cluster.dtype, tokens, checkpointing=cluster.gradient_checkpointing)
    logits = float(LOGITS_BYTES * min(LOGITS_CHUNK[cluster.device], tokens * shape.vocab_size))
    output_gradient = 0.0 if adapters else (4.0 + width) * shape.vocab_size * shape.hidden_size

    sharers = cluster.vllm.tensor_parallel_size
    vllm_weights = width * parameters / sharers
    kv_token = 2 * shape.num_layers * max(1.0, shape.num_kv_heads / sharers) * shape.head_dim * width
    kv_cache, vllm_share = _vllm(cluster, vllm_weights)
    vllm_asleep = 0.0 if is_split else VLLM_ASLEEP if sleeps else vllm_share

    offloaded_reference = reference if on_gpu and cluster.offload_reference else 0.0
    overhead = (CUDA_ALLOWANCE if on_gpu else 0) + reference - offloaded_reference
    states = weights + optimizer + (gradients.held if gradients.stays else 0.0)
    counts = [trained, *([critic_parameters] if config.critic else [])]
    moved_out = [size for n in counts for size in (width * n, *[4 * n / ranks] * 3)] if moves_out else []  # buffers
    # The critic leaves the GPU before the policy's update, which the policy may be there for already, for the KL.
    kl_in_reward = config.algorithm.beta > 0 and config.algorithm.kl.placement != KLPlacement.loss
    critic_outside = 0.0 if moves_out else critic
    sharded = weights + (optimizer + critic_weights if config.critic else 0.0)  # a critic comes after the policy
    engine = (CUDA_ALLOWANCE if on_gpu else 0) + vllm_share  # of a rank that only generates
    largest = float(width * shape.vocab_size * shape.hidden_size)  # the tensor that needs most in the sync
    trainer = overhead + states + critic
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        reference=reference,
        critic=critic,
        zero_buffers=zero_buffers,
        activations=activations,
        activations_kept=activation_bytes(shape, cluster.dtype, tokens, checkpointing=False),
        logits=logits,
        output_gradient=output_gradient,
        vllm_weights=vllm_weights,
        kv_cache=kv_cache,
        kv_token=kv_token,
        moved_out=sum(moved_out),
        cpu=sum(map(pinned, moved_out))
        + (sum(_offloaded(cluster, n) for n in counts) if offloads_optimizer else 0.0)
        + offloaded_reference
        + (vllm_weights if sleeps and cluster.vllm.sleep_level == 1 else 0.0),
        cpu_start=width * parameters if on_gpu else 0.0,
        # DeepSpeed moves the whole model to each GPU and then shards it parameter by parameter.
        start=CUDA_ALLOWANCE + vllm_asleep + width * parameters + sharded if on_gpu and stage == 3 else 0.0,
        rollout=engine if is_split else trainer + vllm_share - sum(moved_out),
        training=overhead
        + (critic if kl_in_reward else critic_outside)
        + vllm_asleep
        + weights
        + optimizer
        + gradients.held
        # One after the other: backward passes, the optimizer's step, the reference's forward passes.
        + max(
            zero_buffers + activations + logits + output_gradient,
            gradients.at_step,
            offloaded_reference + logits,
        ),
        sync=max(engine, trainer) + largest
        if is_split
        else overhead + (VLLM_ASLEEP + vllm_weights if sleeps else vllm_share) + states + critic_outside,
    )


def plan_optimizer(cluster: ClusterConfig, trained: int) -> float:
    """The optimizer's state on a GPU or CPU rank: two moments, and master weights if the weights are not those."""
    if cluster.device == Device.cuda and cluster.offload_optimizer:
        return 0.0
    has_master = cluster.zero_stage in (1, 2) or cluster.dtype == DType.bf16
    return (12 if has_master else 8) * trained / (cluster.train_ranks if cluster.zero_stage >= 1 else 1)


def plan_gradients(cluster: ClusterConfig, trained: int) -> Gradients:
    """The gradients that DeepSpeed 0.19 stores on a GPU or CPU rank.

    In bf16, stages 2 and 3 sum micro-batches in fp32, in the rank's shard. Stage 2 frees it after the step; stage 3
    keeps it, and the step copies it. Stages 0 and 1 sum in bf16; the step copies all of it to fp32 (stage 0) or the
    shard (stage 1). With an offloaded optimizer, the gradients of stages 2 and 3 are in CPU memory (arXiv:2101.06840).
    """
    stage, ranks = cluster.zero_stage, cluster.train_ranks
    part = 4 * trained / ranks
    offloads = cluster.device == Device.cuda and cluster.offload_optimizer
    if offloads and stage >= 2:
        return Gradients()
    if stage == 3:
        return Gradients(part, at_step=4 * min(trained / ranks, ZERO_SUBGROUP), stays=True)
    if stage == 2:
        return Gradients(part)
    if cluster.dtype == DType.fp32:
        return Gradients(4 * trained)
    if stage == 1:
        return Gradients(2 * trained, at_step=0.0 if offloads else part)
    return Gradients(2 * trained, at_step=4 * trained)


def pinned(size: float) -> float:
    """The CPU memory that torch takes for a pinned buffer: a power of two (CachingHostAllocator)."""
    return float(1 << (int(size) - 1).bit_length()) if size >= 1 else 0.0


def _offloaded(cluster: ClusterConfig, trained: int) -> float:
    """CPU memory with `offload_optimizer`: two moments, and in pinned buffers the master weights, their gradient, and
    the sum of the micro-batches (stage 3, in fp32) or that sum and the new weights (stages 1 and 2, in bf16).
    """
    part = trained / cluster.train_ranks
    width = BYTES[cluster.dtype]
    others = [4 * part] if cluster.zero_stage == 3 else [width * part, width * part]
    return 8 * part + sum(map(pinned, [4 * part, 4 * part, *others]))


def activation_bytes(shape: ShapeConfig, dtype: DType, tokens: float, *, checkpointing: bool) -> float:
    """The activations that layers keep for the backward pass: 8H + b(4H + 2A + 2K + 4I) per token and layer.

    Counted as in arXiv:2205.05198, section 4, here for RMSNorm (its input in fp32, its output before and after the
    weight), attention that keeps no scores (queries, keys, values, output) and SwiGLU (four values of width I).
    Checkpointing keeps each layer's input, bH, and one whole layer at a time.
    """
    width, hidden, (queries, keys) = BYTES[dtype], shape.hidden_size, attention_widths(shape)
    layer = 8 * hidden + width * (4 * hidden + 2 * queries + 2 * keys + 4 * shape.intermediate_size)
    if checkpointing:
        return float(tokens * (shape.num_layers * width * hidden + layer))
    return float(tokens * shape.num_layers * layer)


def gpu_memory_gib(cluster: ClusterConfig) -> float | None:
    """The memory of one GPU by the settings or its data sheet; None if it is unknown, or on a CPU."""
    if cluster.device == Device.cpu or cluster.memory_gib is not None:
        return cluster.memory_gib if cluster.device == Device.cuda else None
    gpu = find_gpu(cluster.gpu) if cluster.gpu else None
    return gpu.memory_gib if gpu else None


def _vllm(cluster: ClusterConfig, weights: float) -> tuple[float | None, float]:
    """(KV cache, all memory of vLLM while awake). If the memory of the GPU is unknown: (None, the weights)."""
    if cluster.device == Device.cpu:
        return cluster.vllm.kv_cache_gib * GIB, weights + cluster.vllm.kv_cache_gib * GIB
    memory_gib = gpu_memory_gib(cluster)
    if memory_gib is None:
        return None, weights
    share = cluster.vllm.gpu_memory_utilization * memory_gib * GIB
    return max(0.0, share - weights - VLLM_ALLOWANCE), share
