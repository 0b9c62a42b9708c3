"""The type, the default, the bounds and the meaning of every setting; one dataclass a config group.

A default lives here; a YAML file in conf/ says how it differs. Free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from grpo_cli.choices import (
    AdvantageReward,
    AdvantageScale,
    AnswerMarker,
    Baseline,
    Device,
    DType,
    Grader,
    KeepRule,
    KLEstimator,
    KLPlacement,
    Language,
    Layout,
    OnBadGold,
    Overlong,
    RatioLevel,
    SamplerCorrection,
    Schedule,
    Select,
    Surrogate,
    WandbMode,
    Weighting,
)
from grpo_cli.config.bounds import number


@dataclass
class RunConfig:
    name: str = "train"  # the last part of the run folder's name
    dir: str = MISSING  # the run folder; never overwritten


@dataclass
class LoraConfig:
    """Low-rank adapters (arXiv:2106.09685): only they are trained, and the reference is the model without them."""

    rank: int = number(0, at_least=0, note="0: every weight is trained")  # 0: none, every weight is trained
    alpha: float = number(32.0, above=0)  # the adapter's product is scaled by alpha / rank
    target_modules: list[str] = field(default_factory=list)  # such as [q_proj,v_proj]; empty: all linear layers


@dataclass
class ShapeConfig:
    """What planning needs to know of a model, so that it works off line; the numbers of its config.json."""

    num_layers: int = number(MISSING, at_least=1)
    hidden_size: int = number(MISSING, at_least=1)
    intermediate_size: int = number(MISSING, at_least=1)
    num_heads: int = number(MISSING, at_least=1)
    num_kv_heads: int = number(MISSING, at_least=1)
    head_dim: int = number(MISSING, at_least=1)
    vocab_size: int = number(MISSING, at_least=1)
    tied_embeddings: bool = False
    max_model_len: int = number(MISSING, at_least=1)  # prompt and response together, in tokens


@dataclass
class ModelConfig:
    name: str = MISSING  # what tables and plots call it
    path: str = MISSING  # a hub id, a folder, or what is built in, such as builtin:make_zero
    revision: str | None = None  # of the hub id; pin it to repeat a run
    max_model_len: int | None = number(None, at_least=2)  # prompt and response together; the model's limit unless set
    shape: ShapeConfig | None = None  # for planning; read from the model's config.json unless set
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class TemplateConfig:
    r"""On the command line, `\n` and `\t` in the texts and stop strings are a line break and a tab, and `\\` is `\`."""

    text: str = "{problem}"  # what the model sees, up to where its response begins
    chat: bool = False  # render `text` as a user's turn with the tokenizer's own chat template
    response_prefix: str = ""  # the given beginning of the response, such as "<think>"; ends the prompt
    stop: list[str] = field(default_factory=list)  # strings that end a response, kept in it
    answer: AnswerMarker = AnswerMarker.answer_tag


@dataclass
class RewardConfig:
    # A dictionary of terms: each has a `weight`; the sum is what the advantage sees.
    terms: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = number(2.0, at_least=0.1, at_most=86400)  # of CPU, for one answer; then its process is replaced
    num_workers: int = number(1, at_least=1, at_most=1024)  # processes a rank that verify answers
    memory_gib: float = number(2.0, at_least=0.25, at_most=4096)  # for one verifying process


@dataclass
class AdvantageConfig:
    reward: AdvantageReward = AdvantageReward.total
    baseline: Baseline = Baseline.group_mean
    scale: AdvantageScale = AdvantageScale.group_std
    std_ddof: int = number(0, at_least=0, at_most=1)  # 0: population, 1: sample; published texts differ
    eps: float = number(1e-6, at_least=0)  # added to the standard deviation
    whiten: bool = False  # then centre and scale by the mean and std of all tokens of the batch


@dataclass
class RatioConfig:
    level: RatioLevel = RatioLevel.token


@dataclass
class KLConfig:
    estimator: KLEstimator = KLEstimator.k3
    placement: KLPlacement = KLPlacement.loss


@dataclass
class ReferenceConfig:
    refresh_steps: int = number(0, at_least=0)  # optimizer steps between copies of the policy into it; 0: none


@dataclass
class SamplerCorrectionConfig:
    method: SamplerCorrection = SamplerCorrection.auto
    cap: float = number(2.0, above=0)  # IcePop: 5
    floor: float = number(0.5, at_least=0)  # of token_mask

    def method_in(self, dtype: DType) -> SamplerCorrection:
        """What `auto` means in `dtype`, else the method itself."""
        if self.method != SamplerCorrection.auto:
            return self.method
        return SamplerCorrection.none if dtype == DType.fp32 else SamplerCorrection.token_truncate


@dataclass
class DynamicSamplingConfig:
    """Groups whose accuracies all agree are replaced by fresh prompts."""

    max_refills: int = number(0, at_least=0)  # rounds of fresh prompts in an iteration; 0: agreeing groups stay


@dataclass
class AlgorithmConfig:
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    select: Select = Select.all
    overlong: Overlong = Overlong.none
    dynamic_sampling: DynamicSamplingConfig = field(default_factory=DynamicSamplingConfig)
    weighting: Weighting = Weighting.sequence_mean
    surrogate: Surrogate = Surrogate.clip
    ratio: RatioConfig = field(default_factory=RatioConfig)
    epsilon: float = number(0.2, at_least=0)  # the ratio is clipped to [1 - epsilon, 1 + epsilon_high]
    epsilon_high: float | None = number(None, at_least=0)  # epsilon unless set
    dual_clip: float | None = number(None, above=1)  # the ratio's bound where the advantage is negative
    beta: float = number(0.0, at_least=0)  # weight of the KL to the reference; at 0 there is no reference model
    kl: KLConfig = field(default_factory=KLConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    sampler_correction: SamplerCorrectionConfig = field(default_factory=SamplerCorrectionConfig)
    num_minibatches: int = number(1, at_least=1)  # optimizer steps a rollout and epoch
    num_epochs: int = number(1, at_least=1)


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = number(1e-6, at_least=0, at_most=1)
    betas: tuple[float, float] = number((0.9, 0.95), at_least=0, below=1, count=2)
    eps: float = number(1e-8, above=0, at_most=1)
    weight_decay: float = number(0.0, at_least=0)
    max_grad_norm: float = number(1.0, above=0)
    schedule: Schedule = Schedule.constant
    warmup_steps: int = number(0, at_least=0)  # optimizer steps over which the rate rises from 0


@dataclass
class RolloutConfig:
    prompts_per_step: int = number(128, at_least=1)
    group_size: int = number(8, at_least=1)  # completions a prompt: G
    temperature: float = number(1.0, at_least=0.01, at_most=2, note="vLLM's range")
    top_p: float = number(1.0, above=0, at_most=1)
    max_prompt_tokens: int = number(1024, at_least=1)  # longer prompts are dropped, and counted
    max_new_tokens: int = number(3000, at_least=1)
    # From an optimizer step on, another max_new_tokens: {8200: 65536} for DeepSeek-R1-Zero's second stage.
    max_new_tokens_schedule: dict[int, int] = number({}, at_least=1)
    # Mean |difference| of the two log-probabilities that stops the run; unset: 1e-4 in fp32, 0.1 in bf16.
    mismatch_limit: float | None = number(None, above=0)

    def max_new_tokens_at(self, optimizer_step: int) -> int:
        """The limit once so many optimizer steps are done."""
        begun = [step for step in self.max_new_tokens_schedule if step <= optimizer_step]
        return self.max_new_tokens_schedule[max(begun)] if begun else self.max_new_tokens

    @property
    def longest_sequence(self) -> int:
        """Prompt and response together, in tokens, at any time of the run."""
        return self.max_prompt_tokens + max(self.max_new_tokens, *self.max_new_tokens_schedule.values(), 0)


@dataclass
class VLLMConfig:
    enforce_eager: bool = False
    kv_cache_gib: float = number(1.0, above=0)  # on a CPU
    gpu_memory_utilization: float = number(0.4, above=0, at_most=1)  # share of a GPU's memory for weights and KV cache
    max_num_seqs: int | None = number(None, at_least=1)  # responses generated at one time; vLLM's default unless set
    tensor_parallel_size: int = number(1, at_least=1)  # ranks that share an engine
    # On a GPU while the trainer works: 0 stays awake, 1 keeps the weights in CPU memory, 2 drops them.
    sleep_level: int = number(2, at_least=0, at_most=2)


@dataclass
class SlurmConfig:
    """What sbatch is asked for; the numbers of nodes and ranks are the cluster's."""

    partition: str | None = None  # Slurm's default unless set
    account: str | None = None
    qos: str | None = None
    time_min: int = number(1440, at_least=1)  # minutes until Slurm ends the job
    save_before_s: int = number(600, at_least=0)  # seconds before that end to save and leave; more than a step takes
    mem_gib: int | None = number(None, at_least=1)  # a node; Slurm's default unless set
    cpus_per_rank: int = number(1, at_least=1)
    setup: list[str] = field(default_factory=list)  # shell lines before the ranks start, such as `module load cuda`


@dataclass
class ClusterConfig:
    device: Device = Device.cpu
    nodes: int = number(1, at_least=1)
    ranks: int = number(1, at_least=1)  # processes on all nodes, each with a vLLM engine and a share of the prompts
    slurm: SlurmConfig | None = None  # start the ranks through sbatch; on this machine unless set
    zero_stage: int = number(0, at_least=0, at_most=3)
    persistence_threshold: int = number(100_000, at_least=0)  # ZeRO-3 keeps parameters of at most so many values whole
    offload_optimizer: bool = False  # keep the optimizer's states in CPU memory and step there
    offload_during_rollout: bool = False  # move the trainer's states to CPU memory while vLLM generates
    dtype: DType = DType.bf16
    gradient_checkpointing: bool = True
    offload_reference: bool = False  # keep the reference model in CPU memory but for its forward passes
    gpu: str | None = None  # the kind of its GPUs, such as H100 or "A100 40GB", for planning
    memory_gib: float | None = number(None, above=0)  # of one GPU, for planning; what its data sheet says unless set
    tokens_per_microbatch: int = number(16384, at_least=1)  # a longer sequence is one micro-batch; 1: each is
    threads: int | None = number(None, at_least=1)  # CPU threads a rank; the cores shared evenly unless set
    vllm: VLLMConfig = field(default_factory=VLLMConfig)


@dataclass
class ColumnsConfig:
    """What a data set calls its columns; a dot reaches into a nested one, as in `extra_info.answer`."""

    id: str | None = "id"  # rows are numbered where this is unset or missing
    problem: str = "problem"
    answer: str = "answer"
    grader: str | None = "grader"  # how a row's answer is judged; the data set's grader where this is unset or missing
    answer_pattern: str | None = None  # a regular expression; its first group is the answer: "#### (.+)"


@dataclass
class RowsConfig:
    """Where the rows of a data set come from."""

    path: str | None = None  # a JSONL or parquet file or an arrow folder; wins over `source`
    source: str | None = None  # a hub id, or what is built in, such as builtin:make_zero
    subset: str | None = None  # of the hub data set
    file: str | None = None  # one JSONL or parquet file of the hub data set, where it declares no splits
    revision: str | None = None  # of the hub data set; pin it to repeat a run
    split: str = "train"  # of the hub data set, or of an arrow folder that has several
    max_bad_rows: int = number(0, at_least=0)  # rows that cannot be used and may be left out, with a warning


@dataclass
class SourceConfig(RowsConfig):
    """Where problems come from."""

    columns: ColumnsConfig = field(default_factory=ColumnsConfig)  # of `path`
    source_columns: ColumnsConfig = field(default_factory=ColumnsConfig)  # of the hub data set
    grader: Grader = Grader.math  # of the rows that name none


@dataclass
class DataConfig(SourceConfig):
    name: str = MISSING
    on_bad_gold: OnBadGold = OnBadGold.drop
    num_heldout: int = number(256, at_least=1)  # problems kept out of training and evaluated on
    # Keep the training problems of which a base model gets such a share right, as in [0.05, 0.9], by `pass_rates`.
    pass_rate: tuple[float, float] | None = number(None, at_least=0, at_most=1, count=2)
    pass_rates: str | None = None  # the file of shares that `r1zero analyze` writes


@dataclass
class BenchmarkConfig(SourceConfig):
    """A set of problems that nothing is trained on. No problem leaves its denominator."""

    layout: Layout = Layout.answer  # of the hub data set, and of a file without the columns `problem` and `answer`
    split: str = "test"


@dataclass
class EvalConfig:
    """How a model is sampled on benchmarks."""

    n: int = number(1, at_least=1)  # samples a problem
    temperature: float = number(0.0, at_least=0, at_most=2, note="vLLM's range")  # 0 is greedy
    top_p: float = number(1.0, above=0, at_most=1)
    max_new_tokens: int = number(3000, at_least=1)  # fewer where the model's context ends
    language: Language | None = None  # also report how much of the responses is in it; none unless set


@dataclass
class TrainEvalConfig(EvalConfig):
    every_steps: int = number(50, at_least=0)  # and before the first and after the last step; 0: only there


@dataclass
class ResumeConfig:
    """`resume=...` on the command line is short for `resume.run=...`."""

    run: str = "never"  # auto: go on from the last checkpoint of run.dir, if there is one; else the folder of a run
    allow: list[str] = field(default_factory=list)  # settings that may differ from the run's, though they change it
    trust: bool = False  # go on with a run that another account wrote or changed: what its settings name runs as you


@dataclass
class CheckpointConfig:
    every_steps: int = number(100, at_least=0)  # and at the end, and when the run is asked to stop; 0: only there
    keep_last: int = number(2, at_least=1)  # the newest, one in case that is damaged; the last proved healthy stays too
    keep_every: int = number(0, at_least=0)  # keep also those of every so many steps; 0: none
    keep_best: str | None = None  # keep, and save, also that of the best value of a metric: eval/heldout/avg


@dataclass
class LoggerConfig:
    wandb: bool = True
    console: bool = True
    project: str | None = None  # WANDB_PROJECT or r1zero unless set
    entity: str | None = None
    group: str | None = None  # WANDB_RUN_GROUP unless set; else a sweep sets its own name
    mode: WandbMode = WandbMode.auto
    samples_every: int = number(20, at_least=0)  # steps between tables of sample completions; 0: none
    num_samples: int = number(8, at_least=1)  # prompts in such a table
    verbose: bool = False  # show what vLLM, DeepSpeed and W&B print; else it goes to <run folder>/logs


@dataclass
class TrainConfig:
    """Everything that `r1zero train` can be told."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    steps: int = number(200, at_least=1)  # iterations of rollout and update
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)  # beside the held-out problems
    eval: TrainEvalConfig = field(default_factory=TrainEvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class EvalTask:
    """Everything that `r1zero eval` can be told."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    checkpoint: str | None = None  # a run, one of its checkpoints, a model folder or a hub id; wins over `model`
    trust: bool = False  # read a checkpoint that another account wrote or changed
    rescore: str | None = None  # score the responses of this file instead of sampling any
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)
    eval: EvalConfig = field(default_factory=EvalConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class AnalyzeConfig:
    """What is looked at in a base model before any training."""

    num_problems: int = number(0, at_least=0)  # drawn by the seed; 0: all
    group_sizes: list[int] = number([8, 16, 64], at_least=2)  # the share of mixed groups is shown for each
    judge: str | None = None  # a model that tells answering from continuing; rules do unless set


@dataclass
class AnalyzeTask:
    """Everything that `r1zero analyze` can be told."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    checkpoint: str | None = None  # as for eval; wins over `model`
    trust: bool = False  # as for eval
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    templates: dict[str, TemplateConfig] = field(default_factory=dict)  # of template=[r1,none]; else `template`
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class SampleConfig(EvalConfig):
    """How responses to the training problems are sampled, and which are kept. What was cut short never is."""

    n: int = number(8, at_least=1)  # responses a problem
    temperature: float = number(1.0, at_least=0, at_most=2)
    num_problems: int = number(0, at_least=0)  # drawn by the seed; 0: all
    keep: list[KeepRule] = field(default_factory=lambda: [KeepRule.correct])
    min_tokens: int | None = number(None, at_least=0)  # of a response; no limit unless set
    max_tokens: int | None = number(None, at_least=1)
    # Of two responses to a problem that share so much of their word 3-grams the later is dropped; at 1: only repeats.
    max_similarity: float = number(1.0, above=0, at_most=1)
    per_problem: int = number(0, at_least=0)  # the first so many that pass all else; 0: all
    pairs_per_problem: int = number(1, at_least=0)  # of a kept and a wrong response, for `r1zero reward-model`


@dataclass
class SampleTask:
    """Everything that `r1zero sample` can be told."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    checkpoint: str | None = None  # as for eval; wins over `model`
    trust: bool = False  # as for eval
    to: str | None = None  # the file of what is kept; traces.jsonl in the run folder unless set
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class DemonstrationColumnsConfig:
    """What a data set of demonstrations calls its columns; a dot reaches into a nested one."""

    problem: str = "problem"
    response: str = "response"
    messages: str = "messages"  # a conversation of one question and one reply, where there is no column `problem`


@dataclass
class DemonstrationsConfig(RowsConfig):
    """Problems with the responses that are to be learned."""

    columns: DemonstrationColumnsConfig = field(default_factory=DemonstrationColumnsConfig)
    weight: float = number(1.0, above=0)  # how often each row is seen in an epoch; of 0.5, half of the rows once


@dataclass
class SFTDataConfig(DemonstrationsConfig):
    name: str = "demonstrations"
    # More data sets, each with the settings of DemonstrationsConfig: data.mix.<name>.path=...
    mix: dict[str, Any] = field(default_factory=dict)
    num_heldout: int = number(64, at_least=1)  # problems kept out of training, whose loss is measured
    max_tokens: int = number(4096, at_least=2)  # prompt and response together; longer ones are left out, and counted


@dataclass
class SupervisedTask:
    """What every command that learns from given examples can be told."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)  # of the order of the examples and of new weights
    epochs: float = number(2.0, above=0)
    batch_size: int = number(64, at_least=1)  # examples an optimizer step, over all ranks
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class SFTTask(SupervisedTask):
    """Everything that `r1zero sft` can be told."""

    data: SFTDataConfig = field(default_factory=SFTDataConfig)
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)  # answered through vLLM; none: no vLLM
    eval: TrainEvalConfig = field(default_factory=TrainEvalConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)  # judges the answers to benchmarks


@dataclass
class PreferenceColumnsConfig:
    """What a data set of preferences calls its columns; a dot reaches into a nested one, as in `chosen.1.content`."""

    problem: str = "problem"
    chosen: str = "chosen"
    rejected: str = "rejected"


@dataclass
class PreferencesConfig(RowsConfig):
    """Pairs of responses to a problem, of which one is the better."""

    name: str = "preferences"
    columns: PreferenceColumnsConfig = field(default_factory=PreferenceColumnsConfig)
    num_heldout: int = number(64, at_least=1)  # problems kept out of training, on whose pairs the accuracy is measured
    max_tokens: int = number(4096, at_least=2)  # problem and response; longer pairs are left out, and counted


@dataclass
class RewardModelEvalConfig:
    every_steps: int = number(50, at_least=0)  # and before the first and after the last step; 0: only there


@dataclass
class RewardModelTask(SupervisedTask):
    """Everything that `r1zero reward-model` can be told. Its model reads problem and response without the template."""

    data: PreferencesConfig = field(default_factory=PreferencesConfig)
    eval: RewardModelEvalConfig = field(default_factory=RewardModelEvalConfig)


@dataclass
class ExportTask:
    """Everything that `r1zero export` can be told."""

    checkpoint: str = ""  # a run (its last checkpoint), one of its checkpoints, or a model/ to push as it is
    to: str = ""  # a new folder, or hub:<org>/<name>
    dtype: DType | None = None  # of the weights; what the run trained in unless set
    private: bool = True  # a repository that is new on the hub
    trust: bool = False  # read a checkpoint that another account wrote or changed


# A command that Hydra composes, and the type of its configuration.
SCHEMAS = {
    "train": TrainConfig,
    "sft": SFTTask,
    "reward-model": RewardModelTask,
    "eval": EvalTask,
    "analyze": AnalyzeTask,
    "sample": SampleTask,
    "export": ExportTask,
}
