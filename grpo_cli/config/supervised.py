"""Everything that `r1zero sft` and `r1zero reward-model` take, with the rules between groups."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from grpo_cli.bounds import number
from grpo_cli.config.best import benchmark_metrics, heldout_metrics, keep_best_faults
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.data import BenchmarkConfig
from grpo_cli.config.examples import PreferencesConfig, SFTDataConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.optimizer import OptimizerConfig
from grpo_cli.config.precision import precision_faults
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.run import CheckpointConfig, LoggerConfig, ResumeConfig, RunConfig
from grpo_cli.config.sampling import TrainEvalConfig
from grpo_cli.config.template import TemplateConfig


@dataclass
class SupervisedTask:
    """The settings of every command that learns from given examples."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    """Seed of the order of examples and of new weights, such as the reward head."""
    epochs: float = number(2.0, above=0)
    """Passes over the examples."""
    batch_size: int = number(64, at_least=1)
    """Examples in one optimizer step, over all ranks."""
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def faults(self, key: str) -> Iterator[str]:
        yield from precision_faults(self.cluster)
        size, ranks = self.batch_size, self.cluster.ranks
        if min(size, ranks) > 0 and size % ranks:
            nearest = max(ranks, size - size % ranks)
            yield f"batch_size={size} cannot be divided over {ranks} rank(s). Set batch_size={nearest}, for example."
        yield from keep_best_faults(self.checkpoint, self.evaluation_metrics())

    def evaluation_metrics(self) -> list[str]:
        """The names of the metrics that each evaluation of this run has."""
        raise NotImplementedError


@dataclass
class SFTTask(SupervisedTask):
    """The settings of `r1zero sft`."""

    data: SFTDataConfig = field(default_factory=SFTDataConfig)
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)
    """Benchmarks to evaluate on, through vLLM; without any, vLLM is not started."""
    eval: TrainEvalConfig = field(default_factory=TrainEvalConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)

    def evaluation_metrics(self) -> list[str]:
        return heldout_metrics(["loss"]) + benchmark_metrics(self.benchmark, self.eval)


@dataclass
class RewardModelEvalConfig:
    """When the reward model is evaluated."""

    every_steps: int = number(50, at_least=0)
    """Steps between evaluations, besides those before the first and after the last step; 0: only those two."""


@dataclass
class RewardModelTask(SupervisedTask):
    """The settings of `r1zero reward-model`. Its model reads problem and response without the template."""

    data: PreferencesConfig = field(default_factory=PreferencesConfig)
    eval: RewardModelEvalConfig = field(default_factory=RewardModelEvalConfig)

    def faults(self, key: str) -> Iterator[str]:
        yield from super().faults(key)
        if self.model.lora.rank > 0:
            yield f"model.lora.rank={self.model.lora.rank}: reward models have no adapters. Set model.lora.rank=0."

    def evaluation_metrics(self) -> list[str]:
        return heldout_metrics(["pair_accuracy", "loss", "margin"])
