"""Everything that `r1zero train` takes, with the rules between groups."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from grpo_cli.bounds import number
from grpo_cli.choices import AdvantageKind, AnswerMarker, Baseline, Grader, Surrogate
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.best import benchmark_metrics, heldout_metrics, keep_best_faults, measured
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.critic import CriticConfig
from grpo_cli.config.data import BenchmarkConfig, TrainDataConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.optimizer import OptimizerConfig
from grpo_cli.config.precision import precision_faults
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.run import CheckpointConfig, LoggerConfig, ResumeConfig, RunConfig
from grpo_cli.config.sampling import RolloutConfig, TrainEvalConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.reward.terms import typed_terms
from grpo_cli.reward.terms.format import FormatTerm, TagCountTerm


@dataclass
class TrainConfig:
    """The settings of `r1zero train`."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    """Seed of the held-out problems, the order of prompts and every sample."""
    steps: int = number(200, at_least=1)
    """Steps of rollout and update."""
    replay: str | None = None
    """The folder of a run with logger.replayable=true: each step trains on the responses of that run instead of
    sampling its own. They are scored again."""
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    data: TrainDataConfig = field(default_factory=TrainDataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    critic: CriticConfig | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)
    """Benchmarks to evaluate on, besides the held-out problems."""
    eval: TrainEvalConfig = field(default_factory=TrainEvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def faults(self, key: str) -> Iterator[str]:
        yield from precision_faults(self.cluster)
        yield from self._batch_faults()
        yield from self._staleness_faults()
        yield from self._restart_faults()
        lora, refresh_steps = self.model.lora, self.algorithm.reference.refresh_steps
        if lora.rank > 0 and refresh_steps > 0 and self.algorithm.reference.path is None:
            yield (
                f"algorithm.reference.refresh_steps={refresh_steps} needs a separate reference model, and with "
                f"model.lora.rank={lora.rank} the reference is the model without its adapters. Set "
                "algorithm.reference.refresh_steps=0, or model.lora.rank=0."
            )
        if "code" in self.reward.terms and self.data.grader != Grader.code:
            yield (
                f"reward.terms.code runs a problem's tests, but data.grader={self.data.grader.value}. Set "
                "data.grader=code, or choose another reward."
            )
        yield from self._critic_faults()
        yield from self._answer_faults()
        yield from keep_best_faults(self.checkpoint, self.evaluation_metrics())

    def evaluation_metrics(self) -> list[str]:
        """The names of the metrics that each evaluation of this run has."""
        heldout = heldout_metrics([*measured(self.eval, 1), "greedy"])
        return heldout + benchmark_metrics(self.benchmark, self.eval)

    @property
    def most_carried(self) -> int:
        """For how many steps a group may wait, with `rollout.oversample`; ranks that only generate are a step ahead."""
        return self.rollout.max_staleness - (self.cluster.rollout_ranks > 0)

    def _staleness_faults(self) -> Iterator[str]:
        rollout, splits = self.rollout, self.cluster.rollout_ranks > 0
        if rollout.oversample == 0:
            if rollout.max_staleness > splits:
                yield (
                    f"rollout.max_staleness={rollout.max_staleness} needs "
                    + ("rollout.oversample" if splits else "ranks that only generate, or rollout.oversample")
                    + f": otherwise no token is older than {int(splits)} update(s). Set rollout.oversample="
                    f"{max(1, rollout.prompts_per_step // 2)}, for example"
                    + (", or rollout.max_staleness=1." if splits else ", choose cluster=gpu_8_split, or set it to 0.")
                )
            if rollout.segment_tokens is not None:
                yield (
                    f"rollout.segment_tokens={rollout.segment_tokens} has no effect without rollout.oversample. Set "
                    f"rollout.oversample={max(1, rollout.prompts_per_step // 2)}, for example."
                )
            return
        if self.most_carried < 1:
            yield (
                f"rollout.oversample={rollout.oversample} continues responses in the next step, with weights that are "
                f"one update newer. Set rollout.max_staleness={1 + splits} to allow it, or rollout.oversample=0."
            )
        if rollout.oversample > rollout.prompts_per_step:
            yield (
                f"rollout.oversample={rollout.oversample} is above rollout.prompts_per_step="
                f"{rollout.prompts_per_step}, so groups could become too old. Set rollout.oversample="
                f"{rollout.prompts_per_step} or less."
            )
        if self.algorithm.dynamic_sampling.max_refills > 0:
            yield (
                "rollout.oversample and algorithm.dynamic_sampling.max_refills both draw more prompts than a step "
                "needs, and cannot be combined. Set one of them to 0."
            )

    def _restart_faults(self) -> Iterator[str]:
        cluster, size = self.cluster, self.cluster.vllm.tensor_parallel_size
        if self.rollout.restart_engines and (cluster.rollout_ranks == 0 or size > 1 or cluster.slurm is not None):
            slurm = "null" if cluster.slurm is None else "..."
            yield (
                "rollout.restart_engines=true needs ranks that only generate, an engine in each, and no Slurm, which "
                f"ends all ranks if one dies. Here: cluster.rollout_ranks={cluster.rollout_ranks}, "
                f"cluster.vllm.tensor_parallel_size={size}, cluster.slurm={slurm}. Choose cluster=gpu_8_split, for "
                "example, or set rollout.restart_engines=false."
            )

    def _critic_faults(self) -> Iterator[str]:
        kind, critic, decay = self.algorithm.advantage.kind, self.critic, self.optimizer.weight_decay
        if kind == AdvantageKind.gae and critic is None:
            yield "algorithm.advantage.kind=gae needs a critic. Choose algorithm=ppo, which has one."
        if kind != AdvantageKind.gae and critic is not None:
            yield (
                f"critic.* describes a critic, and algorithm.advantage.kind={kind.value} has no use for one. Choose "
                "algorithm=ppo, or set critic=null."
            )
        if critic is not None and critic.warmup_steps > 0 and decay > 0:
            yield (
                f"critic.warmup_steps={critic.warmup_steps} with optimizer.weight_decay={decay:g} would shrink "
                "the policy's weights while only the critic learns. Set one of them to 0."
            )

    def _answer_faults(self) -> Iterator[str]:
        """An answer that the template asks for in one place and the reward reads in another is never right."""
        options = self.reward.terms.get("accuracy")
        marker = options.get("marker") if isinstance(options, Mapping) else None
        places = {AnswerMarker.answer_tag, AnswerMarker.boxed}
        if {marker, self.template.answer} == places:
            yield (
                f"reward.terms.accuracy.marker={marker} reads the answer in another place than "
                f"template.answer={self.template.answer.value} asks for: no response would be correct. Choose "
                "reward=accuracy, which follows the template, or another template."
            )

    def _batch_faults(self) -> Iterator[str]:
        prompts, group_size = self.rollout.prompts_per_step, self.rollout.group_size
        minibatches, ranks = self.algorithm.num_minibatches, self.cluster.train_ranks
        share = minibatches * ranks
        if share > 1 and prompts > 0 and prompts % share:
            yield (
                f"rollout.prompts_per_step={prompts} cannot be divided into {minibatches} minibatch(es) on {ranks} "
                f"rank(s). Use a multiple of {share}, for example "
                f"rollout.prompts_per_step={max(share, prompts - prompts % share)}."
            )
        baseline = self.algorithm.advantage.baseline
        if group_size == 1 and baseline in (Baseline.group_mean, Baseline.leave_one_out):
            yield (
                f"rollout.group_size=1 with algorithm.advantage.baseline={baseline.value} makes every advantage 0. "
                "Set rollout.group_size=8, for example, or algorithm.advantage.baseline=batch_mean."
            )
        limit, tokens = self.model.max_model_len, self.rollout.longest_sequence
        if limit is not None and tokens > limit:
            room = limit - self.rollout.max_prompt_tokens
            fix = f"Set rollout.max_new_tokens={room}" if room > 0 else "Lower rollout.max_prompt_tokens"
            yield (
                f"rollout.max_prompt_tokens={self.rollout.max_prompt_tokens} and "
                f"rollout.max_new_tokens={tokens - self.rollout.max_prompt_tokens} need {tokens} tokens, and "
                f"model.max_model_len is {limit}. {fix}, or raise model.max_model_len if the model allows it."
            )

    def warnings(self, overridden: Collection[str], *, in_slurm_job: bool = False) -> Iterator[str]:
        """Settings that work, but perhaps not as intended. `overridden` holds the keys on the command line."""
        algorithm = self.algorithm
        if in_slurm_job and not {"run.dir", "resume.run"} & set(overridden):
            yield (
                "This Slurm job would start from step 0 if it were requeued, since its run folder is named by its "
                "start time. Set run.dir, and it resumes by itself."
            )
        if any("epsilon" in key for key in overridden):
            if algorithm.surrogate == Surrogate.none:
                yield "epsilon has no effect with algorithm.surrogate=none. Set algorithm.surrogate=clip."
            elif algorithm.num_minibatches * algorithm.num_epochs == 1:
                yield (
                    "With one minibatch and one epoch, the policy is the one that sampled, the ratio is 1 and epsilon "
                    "has no effect. Set algorithm.num_minibatches=4, for example."
                )
        yield from algorithm.warnings()
        if self.template.text.endswith("<think>") and not self.template.response_prefix:
            yield (
                "template.text ends in <think>, so responses do not contain it, and rewards of the format are 0. Set "
                'template.response_prefix="<think>": it counts as the start of each response.'
            )
        for name, term in typed_terms(self.reward.terms).items():
            if isinstance(term, FormatTerm | TagCountTerm) and self.template.answer != AnswerMarker.answer_tag:
                yield (
                    f"reward.terms.{name} wants <think> and <answer> tags, and template.answer="
                    f"{self.template.answer.value} does not ask for them: it is likely to stay 0. Choose "
                    "reward=accuracy, or template=r1."
                )
            if term.from_step > self.steps:
                yield (
                    f"reward.terms.{name}.from_step={term.from_step} is after steps={self.steps}: the term never "
                    "counts. Lower it, or raise steps."
                )
