"""`cluster.*`: the machines, the ranks, and how memory is used."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from grpo_cli.bounds import number
from grpo_cli.choices import Device, DType
from grpo_cli.hardware import GPUS, find_gpu


@dataclass
class VLLMConfig:
    """The vLLM engines."""

    enforce_eager: bool = False
    """Run without compiled graphs: faster to start, slower to sample."""
    kv_cache_gib: float = number(1.0, above=0)
    """GiB for the KV cache on a CPU."""
    gpu_memory_utilization: float = number(0.4, above=0, at_most=1)
    """Share of a GPU's memory for weights and KV cache."""
    max_num_seqs: int | None = number(None, at_least=1)
    """Responses generated at the same time; vLLM's default if not set."""
    tensor_parallel_size: int = number(1, at_least=1)
    """Ranks that share an engine."""
    sleep_level: int = number(2, at_least=0, at_most=2)
    """While the trainer works on a GPU: 0 stays awake, 1 keeps the weights in CPU memory, 2 drops them."""


@dataclass
class SlurmConfig:
    """Options of the Slurm job; nodes and ranks come from the cluster."""

    partition: str | None = None
    """Slurm's default if not set."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    time_min: int = number(1440, at_least=1)
    """Minutes until Slurm ends the job."""
    save_before_s: int = number(600, at_least=0)
    """Seconds before that end to save and stop; must be more than a step takes."""
    mem_gib: int | None = number(None, at_least=1)
    """GiB of memory on each node; Slurm's default if not set."""
    cpus_per_rank: int = number(1, at_least=1)
    """CPU cores for each rank."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before the ranks start, such as `module load cuda`."""


@dataclass
class ClusterConfig:
    """Where and how a run computes. Only device and dtype change the results by more than rounding."""

    device: Device = Device.cpu
    """CPUs or NVIDIA GPUs."""
    nodes: int = number(1, at_least=1)
    """Machines."""
    ranks: int = number(1, at_least=1)
    """Processes on all nodes together; each has a vLLM engine and a share of the prompts."""
    rollout_ranks: int = number(0, at_least=0)
    """Ranks of `r1zero train` that only generate, while the others only train; 0: each rank does both, in turn."""
    slurm: SlurmConfig | None = None
    """Start the ranks through sbatch; on this machine if not set."""
    zero_stage: int = number(0, at_least=0, at_most=3)
    """DeepSpeed's ZeRO stage."""
    persistence_threshold: int = number(100_000, at_least=0)
    """Under ZeRO-3, parameters with at most this many values stay whole on each rank."""
    offload_optimizer: bool = False
    """Keep the optimizer's states in CPU memory and step there."""
    offload_during_rollout: bool = False
    """Move the trainer's states to CPU memory while vLLM generates."""
    dtype: DType = DType.bf16
    """Precision of weights and activations."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass, to save memory."""
    offload_reference: bool = False
    """Keep the reference model in CPU memory except during its forward passes."""
    gpu: str | None = None
    """Kind of GPU, such as H100 or "A100 40GB", for planning."""
    memory_gib: float | None = number(None, above=0)
    """GiB of one GPU, for planning; from its data sheet if not set."""
    tokens_per_microbatch: int = number(16384, at_least=1)
    """Tokens in one forward and backward pass; longer sequences get their own. 1: one sequence at a time."""
    threads: int | None = number(None, at_least=1)
    """CPU threads of each rank; the cores divided evenly if not set."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)

    @property
    def train_ranks(self) -> int:
        """The ranks of `r1zero train` that train."""
        return self.ranks - self.rollout_ranks

    @property
    def engine_ranks(self) -> int:
        """The ranks of `r1zero train` that have a vLLM engine, or share one."""
        return self.rollout_ranks or self.ranks

    def faults(self, key: str) -> Iterator[str]:
        yield from self._rank_faults(key)
        yield from self._slurm_faults(key)
        yield from self._offload_faults(key)
        if self.gpu is not None and find_gpu(self.gpu) is None:
            known = ", ".join(gpu.name for gpu in GPUS)
            yield f"{key}gpu={self.gpu}: not a known GPU. Set one of {known}, or {key}gpu=null."

    def _rank_faults(self, key: str) -> Iterator[str]:
        nodes, ranks, size = self.nodes, self.ranks, self.vllm.tensor_parallel_size
        if min(nodes, ranks) > 0 and ranks % nodes:
            yield (
                f"{key}ranks={ranks} cannot be divided over {key}nodes={nodes}. Use a multiple of {nodes}, for example "
                f"{key}ranks={max(nodes, ranks - ranks % nodes)}."
            )
        if not 0 <= self.rollout_ranks < max(1, ranks):
            yield (
                f"{key}rollout_ranks={self.rollout_ranks} of {key}ranks={ranks} leaves no rank to train. Set "
                f"{key}ranks={self.rollout_ranks + 1} or more, or {key}rollout_ranks={ranks - 1}."
            )
        if size > 0 and self.rollout_ranks % size:
            yield (
                f"{key}rollout_ranks={self.rollout_ranks} cannot be divided into engines of "
                f"{key}vllm.tensor_parallel_size={size} ranks. Use a multiple of {size}."
            )
        if min(ranks, size) > 0 and ranks % size:
            nearest = max(divisor for divisor in range(1, size) if ranks % divisor == 0)
            yield (
                f"{key}ranks={ranks} cannot be divided into engines of {key}vllm.tensor_parallel_size={size} ranks. "
                f"Set {key}vllm.tensor_parallel_size={nearest}, or use a multiple of {size} ranks, for example "
                f"{key}ranks={max(size, ranks - ranks % size)}."
            )

    def _slurm_faults(self, key: str) -> Iterator[str]:
        if self.slurm is not None and self.slurm.save_before_s >= 60 * self.slurm.time_min:
            yield (
                f"{key}slurm.save_before_s={self.slurm.save_before_s}: must be less than the job's whole time of "
                f"{60 * self.slurm.time_min} s ({key}slurm.time_min={self.slurm.time_min})."
            )
        if self.nodes > 1 and self.slurm is None:
            yield (
                f"{key}nodes={self.nodes}: other machines are reached through Slurm. Choose cluster=slurm_2x8, for "
                f"example, or set {key}nodes=1."
            )

    def _offload_faults(self, key: str) -> Iterator[str]:
        if self.offload_optimizer and self.zero_stage == 0:
            yield f"{key}offload_optimizer=true needs ZeRO. Set {key}zero_stage=1, 2 or 3."
        if self.offload_during_rollout and self.zero_stage not in (1, 2):
            yield (
                f"{key}offload_during_rollout=true with {key}zero_stage={self.zero_stage}: DeepSpeed moves the states "
                f"of torch's AdamW only under ZeRO 1 and 2. Set {key}zero_stage=2, or {key}offload_optimizer=true "
                "instead."
            )
        if self.offload_optimizer and self.offload_during_rollout:
            yield (
                f"{key}offload_optimizer already keeps on the CPU what {key}offload_during_rollout would move there. "
                "Set one of them to false."
            )
