"""The rules between settings, checked at the door: all faults together, each with its mend.

What is checked here is trusted inside. Nothing heavy is imported.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from grpo_cli.config.reward_terms import typed_terms
from grpo_cli.config.schema import (
    AdvantageScale,
    AlgorithmConfig,
    AnalyzeTask,
    Baseline,
    BenchmarkConfig,
    CheckpointConfig,
    ClusterConfig,
    DataConfig,
    Device,
    DType,
    EvalConfig,
    EvalTask,
    ExportTask,
    Grader,
    ModelConfig,
    RewardConfig,
    Surrogate,
    TemplateConfig,
    TrainConfig,
)
from grpo_cli.data.templates import template_fault
from grpo_cli.errors import ConfigError

HUB = "hub:"  # before the name of a repository there


def check_train(config: TrainConfig) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(train_faults(config))


def train_faults(config: TrainConfig) -> list[str]:
    """Every fault, with its mend."""
    return [
        *_range_faults(config),
        *_batch_faults(config),
        *_algorithm_faults(config.algorithm),
        *_sampling_faults(config),
        *_node_faults(config.cluster),
        *_engine_faults(config.cluster),
        *_model_faults(config.model),
        *_offload_faults(config.cluster),
        *_lora_faults(config),
        *_data_faults(config.data),
        *_template_faults(config.template),
        *_reward_faults(config.reward),
        *_code_faults(config),
        *_eval_faults(config.eval),
        *_benchmark_faults(config.benchmark),
        *_checkpoint_faults(config.checkpoint, config.benchmark),
    ]


def check_eval(config: EvalTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(
        [
            *_node_faults(config.cluster),
            *_model_faults(config.model),
            *_template_faults(config.template),
            *_reward_faults(config.reward),
            *_eval_faults(config.eval),
            *_benchmark_faults(config.benchmark),
            *_eval_task_faults(config),
        ]
    )


def check_analyze(config: AnalyzeTask) -> None:
    """Raise one ConfigError that lists every fault."""
    templates = list(config.templates.values()) or [config.template]
    refuse(
        [
            *_node_faults(config.cluster),
            *_model_faults(config.model),
            *_data_faults(config.data),
            *(fault for template in templates for fault in _template_faults(template)),
            *_reward_faults(config.reward),
            *_eval_faults(config.eval),
            *_analyze_faults(config),
        ]
    )


def check_export(config: ExportTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(list(_export_faults(config)))


def refuse(faults: Sequence[str]) -> None:
    """Raise one ConfigError that lists the faults, if there are any."""
    if faults:
        count = "This setting" if len(faults) == 1 else f"These {len(faults)} settings"
        raise ConfigError(f"{count} cannot work:\n" + "\n".join(f"- {fault}" for fault in faults))


def warnings(config: TrainConfig, overridden: Collection[str], *, in_slurm_job: bool = False) -> list[str]:
    """What will run, but perhaps not as meant. `overridden` holds the keys given on the command line."""
    algorithm = config.algorithm
    found = []
    if in_slurm_job and not {"run.dir", "resume.run"} & set(overridden):
        found.append(
            "This Slurm job would begin anew if it were requeued, since its run folder is named by the time of its "
            "start. Set run.dir, and it goes on by itself."
        )
    if any("epsilon" in key for key in overridden):
        if algorithm.surrogate == Surrogate.none:
            found.append("epsilon has no effect with algorithm.surrogate=none. Set algorithm.surrogate=clip.")
        elif algorithm.num_minibatches * algorithm.num_epochs == 1:
            found.append(
                "With one minibatch and one epoch the policy is the one that sampled, the ratio is 1 and epsilon has "
                "no effect. Set algorithm.num_minibatches=4, for example, to give it one."
            )
    if algorithm.reference.refresh_steps and algorithm.beta == 0:
        found.append("algorithm.reference.refresh_steps has no effect while algorithm.beta is 0.")
    return found


def _range_faults(config: TrainConfig) -> Iterator[str]:
    at_least_one = {
        "steps": config.steps,
        "rollout.prompts_per_step": config.rollout.prompts_per_step,
        "rollout.group_size": config.rollout.group_size,
        "rollout.max_new_tokens": config.rollout.max_new_tokens,
        "rollout.max_prompt_tokens": config.rollout.max_prompt_tokens,
        "algorithm.num_minibatches": config.algorithm.num_minibatches,
        "algorithm.num_epochs": config.algorithm.num_epochs,
        "cluster.ranks": config.cluster.ranks,
        "cluster.tokens_per_microbatch": config.cluster.tokens_per_microbatch,
        "data.num_heldout": config.data.num_heldout,
        "checkpoint.keep_last": config.checkpoint.keep_last,
    }
    for key, value in at_least_one.items():
        if value < 1:
            yield f"{key}={value}: must be 1 or more."
    not_negative = {
        "algorithm.beta": config.algorithm.beta,
        "algorithm.epsilon": config.algorithm.epsilon,
        "algorithm.reference.refresh_steps": config.algorithm.reference.refresh_steps,
        "algorithm.dynamic_sampling.max_refills": config.algorithm.dynamic_sampling.max_refills,
        "optimizer.lr": config.optimizer.lr,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.warmup_steps": config.optimizer.warmup_steps,
        "eval.every_steps": config.eval.every_steps,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep_every": config.checkpoint.keep_every,
        "logger.samples_every": config.logger.samples_every,
    }
    for key, value in not_negative.items():
        if value < 0:
            yield f"{key}={value}: must be 0 or more."
    if config.cluster.zero_stage not in range(4):
        yield f"cluster.zero_stage={config.cluster.zero_stage}: must be 0, 1, 2 or 3."
    if config.optimizer.max_grad_norm <= 0:
        yield f"optimizer.max_grad_norm={config.optimizer.max_grad_norm}: must be above 0."
    if config.cluster.dtype == DType.bf16 and config.cluster.zero_stage == 0:
        yield (
            "cluster.dtype=bf16 with cluster.zero_stage=0 keeps no fp32 master weights, so that small updates "
            "vanish. Set cluster.zero_stage=1, or cluster.dtype=fp32."
        )


def _batch_faults(config: TrainConfig) -> Iterator[str]:
    prompts, group_size = config.rollout.prompts_per_step, config.rollout.group_size
    minibatches, ranks = config.algorithm.num_minibatches, config.cluster.ranks
    share = minibatches * ranks
    if share > 1 and prompts > 0 and prompts % share:
        nearest = max(share, prompts - prompts % share)
        yield (
            f"rollout.prompts_per_step={prompts} cannot be shared by {minibatches} minibatch(es) on {ranks} rank(s). "
            f"Use a multiple of {share}, for example rollout.prompts_per_step={nearest}."
        )
    baseline = config.algorithm.advantage.baseline
    if group_size == 1 and baseline in (Baseline.group_mean, Baseline.leave_one_out):
        yield (
            f"rollout.group_size=1 with algorithm.advantage.baseline={baseline.value} makes every advantage 0. "
            "Set rollout.group_size=8, for example, or algorithm.advantage.baseline=batch_mean."
        )
    limit = config.model.max_model_len
    tokens = config.rollout.longest_sequence
    if limit is not None and tokens > limit:
        room = limit - config.rollout.max_prompt_tokens
        mend = f"Set rollout.max_new_tokens={room}" if room > 0 else "Lower rollout.max_prompt_tokens"
        yield (
            f"rollout.max_prompt_tokens={config.rollout.max_prompt_tokens} and "
            f"rollout.max_new_tokens={tokens - config.rollout.max_prompt_tokens} need {tokens} tokens, and "
            f"model.max_model_len is {limit}. {mend}, or raise model.max_model_len if the model allows it."
        )


def _algorithm_faults(algorithm: AlgorithmConfig) -> Iterator[str]:
    advantage = algorithm.advantage
    if advantage.std_ddof not in (0, 1):
        yield f"algorithm.advantage.std_ddof={advantage.std_ddof}: must be 0 (population) or 1 (sample)."
    if advantage.scale == AdvantageScale.group_std and advantage.baseline in (Baseline.none, Baseline.batch_mean):
        yield (
            f"algorithm.advantage.scale=group_std with algorithm.advantage.baseline={advantage.baseline.value} would "
            "silence groups that agree and are not average. Set algorithm.advantage.scale=batch_std, or "
            "algorithm.advantage.baseline=group_mean."
        )
    if algorithm.sampler_correction.cap <= 0:
        yield f"algorithm.sampler_correction.cap={algorithm.sampler_correction.cap}: must be above 0."
    if algorithm.dual_clip is not None and algorithm.dual_clip <= 1:
        yield f"algorithm.dual_clip={algorithm.dual_clip}: must be above 1, the ratio of an unmoved policy."


def _sampling_faults(config: TrainConfig) -> Iterator[str]:
    if config.rollout.temperature <= 0:
        yield (
            f"rollout.temperature={config.rollout.temperature}: must be above 0, since equal responses teach "
            "nothing. Set rollout.temperature=1."
        )
    if config.rollout.top_p != 1:
        yield (
            f"rollout.top_p={config.rollout.top_p}: vLLM renormalises over the kept tokens and the trainer does "
            "not, so that the two would disagree. Set rollout.top_p=1."
        )
    if config.cluster.device == Device.cpu and config.cluster.vllm.kv_cache_gib <= 0:
        yield f"cluster.vllm.kv_cache_gib={config.cluster.vllm.kv_cache_gib}: must be above 0."


def _node_faults(cluster: ClusterConfig) -> Iterator[str]:
    nodes, ranks = cluster.nodes, cluster.ranks
    if nodes < 1:
        yield f"cluster.nodes={nodes}: must be 1 or more."
    elif ranks % nodes:
        yield (
            f"cluster.ranks={ranks} cannot be shared by cluster.nodes={nodes}. Use a multiple of {nodes}, for example "
            f"cluster.ranks={max(nodes, ranks - ranks % nodes)}."
        )
    if cluster.slurm is not None and not 0 <= cluster.slurm.save_before_s < 60 * cluster.slurm.time_min:
        yield (
            f"cluster.slurm.save_before_s={cluster.slurm.save_before_s}: must be less than the job's whole time, which "
            f"is {60 * cluster.slurm.time_min} s (cluster.slurm.time_min={cluster.slurm.time_min})."
        )
    if nodes > 1 and cluster.slurm is None:
        yield (
            f"cluster.nodes={nodes}: other machines are reached through Slurm. Choose cluster=slurm_2x8, for example, "
            "or set cluster.nodes=1."
        )


def _engine_faults(cluster: ClusterConfig) -> Iterator[str]:
    ranks, size = cluster.ranks, cluster.vllm.tensor_parallel_size
    if size < 1:
        yield f"cluster.vllm.tensor_parallel_size={size}: must be 1 or more."
    elif ranks % size:
        nearest = max(divisor for divisor in range(1, size) if ranks % divisor == 0)
        yield (
            f"cluster.ranks={ranks} cannot share engines of cluster.vllm.tensor_parallel_size={size} ranks each. Set "
            f"cluster.vllm.tensor_parallel_size={nearest}, or use a multiple of {size} ranks, for example "
            f"cluster.ranks={max(size, ranks - ranks % size)}."
        )
    share = cluster.vllm.gpu_memory_utilization
    if not 0 < share <= 1:
        yield f"cluster.vllm.gpu_memory_utilization={share}: must be above 0 and at most 1, as in 0.4."
    if cluster.vllm.sleep_level not in (0, 1, 2):
        yield f"cluster.vllm.sleep_level={cluster.vllm.sleep_level}: must be 0, 1 or 2."
    if cluster.memory_gib is not None and cluster.memory_gib <= 0:
        yield f"cluster.memory_gib={cluster.memory_gib}: must be above 0, such as 80."


def _offload_faults(cluster: ClusterConfig) -> Iterator[str]:
    if cluster.offload_optimizer and cluster.zero_stage == 0:
        yield "cluster.offload_optimizer=true needs ZeRO. Set cluster.zero_stage=1, 2 or 3."
    if cluster.offload_during_rollout and cluster.zero_stage not in (1, 2):
        yield (
            f"cluster.offload_during_rollout=true with cluster.zero_stage={cluster.zero_stage}: DeepSpeed moves the "
            "states of torch's AdamW only under ZeRO 1 and 2. Set cluster.zero_stage=2, or cluster.offload_optimizer="
            "true instead."
        )
    if cluster.offload_optimizer and cluster.offload_during_rollout:
        yield (
            "cluster.offload_optimizer keeps on the CPU what cluster.offload_during_rollout would move there. Set one "
            "of them to false."
        )


def _model_faults(model: ModelConfig) -> Iterator[str]:
    path = model.path
    if path.startswith((".", "/", "~")) and not (Path(path).expanduser() / "config.json").is_file():
        yield (
            f"model.path={path}: there is no model folder there (no config.json). Give a folder as transformers "
            "saves it, a hub id such as Qwen/Qwen2.5-Math-1.5B, or builtin:make_zero."
        )


def _lora_faults(config: TrainConfig) -> Iterator[str]:
    lora, refresh_steps = config.model.lora, config.algorithm.reference.refresh_steps
    if lora.rank < 0:
        yield f"model.lora.rank={lora.rank}: must be 1 or more, or 0 to train every weight."
    if lora.alpha <= 0:
        yield f"model.lora.alpha={lora.alpha}: must be above 0. Set model.lora.alpha=32, for example."
    if lora.rank > 0 and refresh_steps > 0:
        yield (
            f"algorithm.reference.refresh_steps={refresh_steps} needs a reference of its own, and with model.lora.rank="
            f"{lora.rank} it is the model without its adapters. Set algorithm.reference.refresh_steps=0, or "
            "model.lora.rank=0."
        )


def _data_faults(data: DataConfig) -> Iterator[str]:
    if data.source is None and data.path is None:
        yield "data.path is not set. Give a JSONL or parquet file or an arrow folder, as in data.path=train.jsonl."
    if data.path is not None and not Path(data.path).expanduser().exists():
        yield f"data.path={data.path}: there is no such file or folder."
    if data.pass_rate is not None and data.pass_rates is None:
        yield (
            "data.pass_rate needs the pass rates of the problems. Set data.pass_rates to the file that `r1zero "
            "analyze` wrote, as in data.pass_rates=runs/.../pass_rates_default.jsonl."
        )
    if data.pass_rate is not None and not 0 <= data.pass_rate[0] <= data.pass_rate[1] <= 1:
        yield f"data.pass_rate={list(data.pass_rate)}: must be two shares in rising order, as in [0.05,0.9]."


def _template_faults(template: TemplateConfig) -> Iterator[str]:
    if fault := template_fault(template):
        yield fault


def _reward_faults(reward: RewardConfig) -> Iterator[str]:
    try:
        terms = typed_terms(reward.terms)
    except ConfigError as error:
        yield str(error)
        return
    if not terms:
        yield "reward.terms is empty. Choose reward=r1, or give a term, as in reward.terms.accuracy.weight=1."


def _code_faults(config: TrainConfig) -> Iterator[str]:
    if "code" in config.reward.terms and config.data.grader != Grader.code:
        yield (
            f"reward.terms.code runs a problem's tests, and data.grader={config.data.grader.value} says that answers "
            "are something else. Set data.grader=code, or choose another reward."
        )


def _eval_faults(sampling: EvalConfig) -> Iterator[str]:
    for key, value in {"n": sampling.n, "max_new_tokens": sampling.max_new_tokens}.items():
        if value < 1:
            yield f"eval.{key}={value}: must be 1 or more."
    if sampling.temperature < 0:
        yield f"eval.temperature={sampling.temperature}: must be 0 (greedy) or more."
    if not 0 < sampling.top_p <= 1:
        yield f"eval.top_p={sampling.top_p}: must be above 0 and at most 1."
    if sampling.n > 1 and sampling.temperature == 0:
        yield (
            f"eval.n={sampling.n} samples at eval.temperature=0 would all be the same. Set eval.temperature=0.6, for "
            "example, or eval.n=1."
        )


def _benchmark_faults(benchmarks: Mapping[str, BenchmarkConfig]) -> Iterator[str]:
    for name, benchmark in benchmarks.items():
        if benchmark.source is None and benchmark.path is None:
            yield f"benchmark.{name}.path is not set. Give a JSONL or parquet file or an arrow folder."
        if benchmark.path is not None and not Path(benchmark.path).expanduser().exists():
            yield f"benchmark.{name}.path={benchmark.path}: there is no such file or folder."


def _checkpoint_faults(checkpoint: CheckpointConfig, benchmarks: Collection[str]) -> Iterator[str]:
    best = checkpoint.keep_best
    if best is not None and not (best.startswith("eval/") and best.split("/")[1] in ("heldout", *benchmarks)):
        yield (
            f"checkpoint.keep_best={best}: is no metric of this run's evaluations. Set checkpoint.keep_best="
            "eval/heldout/avg, for example."
        )


def _analyze_faults(config: AnalyzeTask) -> Iterator[str]:
    if config.cluster.ranks < 1:
        yield f"cluster.ranks={config.cluster.ranks}: must be 1 or more."
    if config.analyze.num_problems < 0:
        yield f"analyze.num_problems={config.analyze.num_problems}: must be 0 (all) or more."
    sizes = config.analyze.group_sizes
    if not sizes or min(sizes) < 2:
        yield f"analyze.group_sizes={sizes}: must be sizes of 2 or more, as in [8,16,64]."


def _eval_task_faults(config: EvalTask) -> Iterator[str]:
    if not config.benchmark:
        yield "benchmark is empty. Choose one or several, as in benchmark=[aime24,math500]."
    if config.cluster.ranks < 1:
        yield f"cluster.ranks={config.cluster.ranks}: must be 1 or more."
    if config.rescore is not None and not Path(config.rescore).expanduser().is_file():
        yield f"rescore={config.rescore}: there is no such file."


def _export_faults(config: ExportTask) -> Iterator[str]:
    if not config.checkpoint:
        yield "checkpoint is not set. Give a run's folder or one of its checkpoints, as in checkpoint=runs/quickstart."
    if not config.to:
        yield f"to is not set. Give a new folder, as in to=my_model, or to={HUB}<org>/<name>."
    name = config.to.removeprefix(HUB)
    if config.to.startswith(HUB) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        yield f"to={config.to}: the hub wants an owner and a name, as in to={HUB}my_org/{name or 'my_model'}."
