"""How a run is divided into batches and steps."""

import math
from dataclasses import dataclass

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import find_gpu

# vLLM's own defaults (vllm/engine/arg_utils.py): more on GPUs with much memory, except the A100.
AT_ONCE, AT_ONCE_LARGE, LARGE_GIB = 256, 1024, 70


@dataclass(frozen=True)
class Batches:
    """Counts per rollout unless a comment says otherwise."""

    prompts: int
    completions: int
    completions_per_rank: int  # of those that generate
    completions_per_trainer: int
    minibatch_completions: int  # over all ranks
    steps_per_rollout: int  # optimizer steps
    total_steps: int  # optimizer steps of the run
    longest_sequence: int  # tokens
    microbatches: int  # per rank and optimizer step, if all sequences had the maximum length
    microbatch_tokens: int  # of the largest micro-batch
    max_tokens: int  # of prompts and responses


def plan_batches(config: TrainConfig) -> Batches:
    """`config` has passed check_train."""
    rollout, algorithm, trainers = config.rollout, config.algorithm, config.cluster.train_ranks
    completions = rollout.prompts_per_step * rollout.group_size
    minibatch = completions // algorithm.num_minibatches
    budget, longest = config.cluster.tokens_per_microbatch, rollout.longest_sequence
    steps_per_rollout = algorithm.num_minibatches * algorithm.num_epochs
    return Batches(
        prompts=rollout.prompts_per_step,
        completions=completions,
        completions_per_rank=math.ceil(completions / config.cluster.engine_ranks),
        completions_per_trainer=math.ceil(completions / trainers),
        minibatch_completions=minibatch,
        steps_per_rollout=steps_per_rollout,
        total_steps=config.steps * steps_per_rollout,
        longest_sequence=longest,
        microbatches=math.ceil(minibatch / trainers / max(1, budget // longest)),
        microbatch_tokens=min(max(budget, longest), math.ceil(minibatch / trainers) * longest),
        max_tokens=completions * longest,
    )


def num_at_once(cluster: ClusterConfig) -> int:
    """How many responses an engine generates at the same time, given enough requests."""
    if cluster.vllm.max_num_seqs is not None:
        return cluster.vllm.max_num_seqs
    gpu = find_gpu(cluster.gpu or "")
    is_large = gpu is not None and (cluster.memory_gib or gpu.memory_gib or 0) >= LARGE_GIB and "A100" not in gpu.name
    return AT_ONCE_LARGE if is_large else AT_ONCE
