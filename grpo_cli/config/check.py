"""The rules between settings, checked at the door: all faults together, each with its mend.

What is checked here is trusted inside. Nothing heavy is imported.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from grpo_cli.choices import AdvantageReward, AdvantageScale, Baseline, DType, Grader, KeepRule, Select, Surrogate
from grpo_cli.config.best import best_faults
from grpo_cli.config.bounds import range_faults
from grpo_cli.config.compose import typed_mix
from grpo_cli.config.objective import objective_faults, objective_warnings
from grpo_cli.config.reward_terms import FunctionTerm, ModelTerm, typed_terms
from grpo_cli.config.schema import (
    AlgorithmConfig,
    AnalyzeTask,
    BenchmarkConfig,
    ClusterConfig,
    DataConfig,
    EvalConfig,
    EvalTask,
    ExportTask,
    ModelConfig,
    RewardConfig,
    RewardModelTask,
    SampleTask,
    SFTDataConfig,
    SFTTask,
    TemplateConfig,
    TrainConfig,
)
from grpo_cli.data.demonstrations import BUILTIN
from grpo_cli.data.templates import template_fault
from grpo_cli.errors import ConfigError
from grpo_cli.hardware import GPUS, find_gpu
from grpo_cli.types import Problem

MIN_TEMPERATURE = 0.01  # vLLM raises what is lower and not 0
HUB = "hub:"  # before the name of a repository there


def check_train(config: TrainConfig) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(train_faults(config))


def train_faults(config: TrainConfig) -> list[str]:
    """Every fault, with its mend."""
    return [
        *range_faults(config),
        *_learning_faults(config),
        *_batch_faults(config),
        *_algorithm_faults(config.algorithm),
        *_sampling_faults(config),
        *_engine_faults(config.cluster),
        *_refresh_faults(config),
        *_data_faults(config.data),
        *_template_faults(config.template),
        *_reward_faults(config.reward),
        *_code_faults(config),
        *_eval_faults(config.eval),
        *_benchmark_faults(config.benchmark),
        *best_faults(config),
    ]


def check_sft(config: SFTTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(
        [
            *range_faults(config),
            *_supervised_faults(config),
            *_demonstration_faults(config.data),
            *_template_faults(config.template),
            *_reward_faults(config.reward),
            *_eval_faults(config.eval),
            *_benchmark_faults(config.benchmark),
            *best_faults(config),
        ]
    )


def check_reward_model(config: RewardModelTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse([*range_faults(config), *_supervised_faults(config), *_preference_faults(config), *best_faults(config)])


def check_eval(config: EvalTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(
        [
            *range_faults(config),
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
            *range_faults(config),
            *_node_faults(config.cluster),
            *_model_faults(config.model),
            *_data_faults(config.data),
            *(fault for template in templates for fault in _template_faults(template)),
            *_reward_faults(config.reward),
            *_eval_faults(config.eval),
            *_analyze_faults(config),
        ]
    )


def check_sample(config: SampleTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(
        [
            *range_faults(config),
            *_node_faults(config.cluster),
            *_model_faults(config.model),
            *_data_faults(config.data),
            *_template_faults(config.template),
            *_reward_faults(config.reward),
            *_eval_faults(config.sample, "sample"),
            *_sample_faults(config),
        ]
    )


def check_export(config: ExportTask) -> None:
    """Raise one ConfigError that lists every fault."""
    refuse(list(_export_faults(config)))


def general_fault(problems: Iterable[Problem], config: TrainConfig) -> str | None:
    """Why the general prompts among `problems` could teach nothing, with the mend, or None."""
    general = [problem.id for problem in problems if problem.grader == Grader.model]
    if not general:
        return None
    seen = f"{len(general)} problems, such as {general[0]}, have the grader `model`, which is no rule"
    if not any(isinstance(term, ModelTerm | FunctionTerm) for term in typed_terms(config.reward.terms).values()):
        return (
            f"{seen}, and reward.terms has neither a model nor a function of your own. Give a reward model, as in "
            "reward=r1_general reward.terms.model.path=<run of r1zero reward-model>/model, or choose other data."
        )
    if config.algorithm.advantage.reward == AdvantageReward.accuracy:
        mend = "algorithm.advantage.reward=total"
    elif config.algorithm.select == Select.correct:
        mend = "algorithm.select=all"
    else:
        return None
    return f"{seen}, and this algorithm learns from right answers alone. Set {mend}, or choose other data."


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
    found.extend(objective_warnings(algorithm))
    for name, term in typed_terms(config.reward.terms).items():
        if term.from_step > config.steps:
            window = f"reward.terms.{name}.from_step={term.from_step}"
            found.append(f"{window} is after steps={config.steps}: the term never counts. Lower it, or raise steps.")
    return found


def _learning_faults(config: TrainConfig | SFTTask) -> Iterator[str]:
    """Of what every run that trains has."""
    if config.cluster.dtype == DType.bf16 and config.cluster.zero_stage == 0:
        yield (
            "cluster.dtype=bf16 with cluster.zero_stage=0 keeps no fp32 master weights, so that small updates "
            "vanish. Set cluster.zero_stage=1, or cluster.dtype=fp32."
        )
    yield from _node_faults(config.cluster)
    yield from _model_faults(config.model)
    yield from _offload_faults(config.cluster)


def _supervised_faults(config: SFTTask | RewardModelTask) -> Iterator[str]:
    """Of what every run that learns from given examples has."""
    yield from _learning_faults(config)
    yield from _engine_faults(config.cluster)
    size, ranks = config.batch_size, config.cluster.ranks
    if min(size, ranks) > 0 and size % ranks:
        nearest = max(ranks, size - size % ranks)
        yield f"batch_size={size} cannot be shared by {ranks} rank(s). Set batch_size={nearest}, for example."


def _demonstration_faults(data: SFTDataConfig) -> Iterator[str]:
    try:
        mix = typed_mix(data.mix)
    except ConfigError as error:
        yield str(error)
        return
    for name, other in mix.items():
        yield from range_faults(other, f"data.mix.{name}.")
    for key, some in [("data", data), *((f"data.mix.{name}", other) for name, other in mix.items())]:
        has_none = some.source is None or (some.source.startswith("builtin:") and some.source not in BUILTIN)
        if some.path is None and has_none:
            yield (
                f"{key}.path is not set. Give a file that `r1zero sample` wrote, as in {key}.path=traces.jsonl; built "
                f"in as {key}.source are {', '.join(BUILTIN)}."
            )
        if some.path is not None and not Path(some.path).expanduser().exists():
            yield f"{key}.path={some.path}: there is no such file or folder."


def _preference_faults(config: RewardModelTask) -> Iterator[str]:
    data = config.data
    if data.path is None and data.source is None:
        yield "data.path is not set. Give a file that `r1zero sample` wrote, as in data.path=runs/.../pairs.jsonl."
    if data.path is not None and not Path(data.path).expanduser().exists():
        yield f"data.path={data.path}: there is no such file or folder."
    if config.model.lora.rank > 0:
        yield f"model.lora.rank={config.model.lora.rank}: a reward model is trained whole. Set model.lora.rank=0."


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
    if advantage.scale == AdvantageScale.group_std and advantage.baseline in (Baseline.none, Baseline.batch_mean):
        yield (
            f"algorithm.advantage.scale=group_std with algorithm.advantage.baseline={advantage.baseline.value} would "
            "silence groups that agree and are not average. Set algorithm.advantage.scale=batch_std, or "
            "algorithm.advantage.baseline=group_mean."
        )
    yield from objective_faults(algorithm)


def _sampling_faults(config: TrainConfig) -> Iterator[str]:
    if 0 < config.rollout.top_p < 1:
        yield (
            f"rollout.top_p={config.rollout.top_p}: vLLM renormalises over the kept tokens and the trainer does "
            "not, so that the two would disagree. Set rollout.top_p=1."
        )


def _node_faults(cluster: ClusterConfig) -> Iterator[str]:
    nodes, ranks = cluster.nodes, cluster.ranks
    if min(nodes, ranks) > 0 and ranks % nodes:
        yield (
            f"cluster.ranks={ranks} cannot be shared by cluster.nodes={nodes}. Use a multiple of {nodes}, for example "
            f"cluster.ranks={max(nodes, ranks - ranks % nodes)}."
        )
    if cluster.slurm is not None and cluster.slurm.save_before_s >= 60 * cluster.slurm.time_min:
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
    if min(ranks, size) > 0 and ranks % size:
        nearest = max(divisor for divisor in range(1, size) if ranks % divisor == 0)
        yield (
            f"cluster.ranks={ranks} cannot share engines of cluster.vllm.tensor_parallel_size={size} ranks each. Set "
            f"cluster.vllm.tensor_parallel_size={nearest}, or use a multiple of {size} ranks, for example "
            f"cluster.ranks={max(size, ranks - ranks % size)}."
        )
    if cluster.gpu is not None and find_gpu(cluster.gpu) is None:
        known = ", ".join(gpu.name for gpu in GPUS)
        yield f"cluster.gpu={cluster.gpu}: not a known GPU. Set one of {known}, or cluster.gpu=null."


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
    yield from _model_folder_faults("model.path", model.path)


def _model_folder_faults(key: str, path: str) -> Iterator[str]:
    if path.startswith((".", "/", "~")) and not (Path(path).expanduser() / "config.json").is_file():
        yield (
            f"{key}={path}: there is no model folder there (no config.json). Give a folder as transformers "
            "saves it, a hub id such as Qwen/Qwen2.5-Math-1.5B, or builtin:make_zero."
        )


def _refresh_faults(config: TrainConfig) -> Iterator[str]:
    lora, refresh_steps = config.model.lora, config.algorithm.reference.refresh_steps
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
    if data.pass_rates is not None and not Path(data.pass_rates).expanduser().is_file():
        yield f"data.pass_rates={data.pass_rates}: there is no such file."
    if data.pass_rate is not None and list(data.pass_rate) != sorted(data.pass_rate):
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


def _eval_faults(sampling: EvalConfig, group: str = "eval") -> Iterator[str]:
    if 0 < sampling.temperature < MIN_TEMPERATURE:
        yield (
            f"{group}.temperature={sampling.temperature}: vLLM samples at {MIN_TEMPERATURE} or more. Set "
            f"{group}.temperature={MIN_TEMPERATURE}, or 0, which is greedy."
        )
    if sampling.n > 1 and sampling.temperature == 0:
        yield (
            f"{group}.n={sampling.n} samples at {group}.temperature=0 would all be the same. Set "
            f"{group}.temperature=0.6, for example, or {group}.n=1."
        )


def _benchmark_faults(benchmarks: Mapping[str, BenchmarkConfig]) -> Iterator[str]:
    for name, benchmark in benchmarks.items():
        if benchmark.source is None and benchmark.path is None:
            yield f"benchmark.{name}.path is not set. Give a JSONL or parquet file or an arrow folder."
        if benchmark.path is not None and not Path(benchmark.path).expanduser().exists():
            yield f"benchmark.{name}.path={benchmark.path}: there is no such file or folder."


def _analyze_faults(config: AnalyzeTask) -> Iterator[str]:
    if not config.analyze.group_sizes:
        yield "analyze.group_sizes=[]: names no size. Set analyze.group_sizes=[8,16,64], for example."
    if config.analyze.judge is not None:
        yield from _model_folder_faults("analyze.judge", config.analyze.judge)


def _sample_faults(config: SampleTask) -> Iterator[str]:
    rules = config.sample
    if None not in (rules.min_tokens, rules.max_tokens) and rules.min_tokens > rules.max_tokens:
        yield (
            f"sample.min_tokens={rules.min_tokens} is above sample.max_tokens={rules.max_tokens}: no response could be "
            "kept. Set sample.max_tokens to more."
        )
    if rules.language is not None and KeepRule.one_language not in rules.keep:
        kept_by = ",".join([*rules.keep, KeepRule.one_language])
        yield (
            f"sample.language={rules.language.value} chooses nothing without the rule one_language. Set "
            f"sample.keep={kept_by}."
        )
    if config.to is not None:
        yield from _traces_file_faults(Path(config.to).expanduser(), config.to)


def _traces_file_faults(file: Path, to: str) -> Iterator[str]:
    if file.suffix != ".jsonl":
        yield f"to={to}: is a file of JSON lines, with a card beside it. Let it end in .jsonl, as in to=traces.jsonl."
    if not file.parent.is_dir():
        yield f"to={to}: there is no folder {file.parent}. Make it (mkdir -p {file.parent}), or give another file."


def _eval_task_faults(config: EvalTask) -> Iterator[str]:
    if not config.benchmark:
        yield "benchmark is empty. Choose one or several, as in benchmark=[aime24,math500]."
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
