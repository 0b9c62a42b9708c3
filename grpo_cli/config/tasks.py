"""Everything that `eval`, `analyze`, `sample` and `export` take, with the rules between groups."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpo_cli.bounds import number
from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.data import BenchmarkConfig, DataConfig
from grpo_cli.config.grammar import quoted
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.run import LoggerConfig, RunConfig
from grpo_cli.config.sampling import AnalyzeConfig, EvalConfig, SampleConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError

HUB = "hub:"  # before the name of a repository on the Hub


@dataclass
class SamplingTask:
    """The settings of every command that samples a model without training it."""

    seed: int = number(0, at_least=0, at_most=2**63 - 1)
    """Seed of every sample."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, a model folder or a Hub id; used instead of `model` if set."""
    trust: bool = False
    """Read a checkpoint that another account wrote or changed."""
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class EvalTask(SamplingTask):
    """The settings of `r1zero eval`."""

    rescore: str | None = None
    """Score the responses in this file instead of sampling new ones."""
    benchmark: dict[str, BenchmarkConfig] = field(default_factory=dict)
    """Benchmarks to measure on."""
    eval: EvalConfig = field(default_factory=EvalConfig)

    @staticmethod
    def expand_shorthands(arguments: Sequence[str]) -> list[str]:
        """`--rescore FILE` as `rescore=FILE`."""
        expanded, rest = [], iter(arguments)
        for argument in rest:
            if argument != "--rescore":
                expanded.append(argument)
                continue
            file = next(rest, None)
            if file is None:
                raise ConfigError("--rescore needs a file of responses, as in --rescore responses.jsonl.")
            expanded.append(f"rescore={quoted(file)}")
        return expanded

    def faults(self, key: str) -> Iterator[str]:
        if not self.benchmark:
            yield "benchmark is empty. Choose one or several, as in benchmark=[aime24,math500]."
        if self.rescore is not None and not Path(self.rescore).expanduser().is_file():
            yield f"rescore={self.rescore}: there is no such file."


@dataclass
class AnalyzeTask(SamplingTask):
    """The settings of `r1zero analyze`."""

    templates: dict[str, TemplateConfig] = field(default_factory=dict)
    """Several templates to compare, from template=[r1,none]; otherwise `template` alone."""
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)

    @staticmethod
    def expand_shorthands(arguments: Sequence[str]) -> list[str]:
        """`template=[a,b]` as one override for each template."""
        expanded = []
        for argument in arguments:
            if argument.startswith("template="):
                names = argument.removeprefix("template=").strip("[]").split(",")
                expanded += [f"+template@templates.{name.strip()}={name.strip()}" for name in names]
            else:
                expanded.append(argument)
        return expanded


@dataclass
class SampleTask(SamplingTask):
    """The settings of `r1zero sample`."""

    to: str | None = None
    """The file for what is kept; traces.jsonl in the run folder if not set."""
    data: DataConfig = field(default_factory=DataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @staticmethod
    def expand_shorthands(arguments: Sequence[str]) -> list[str]:
        """`sample.keep=a,b` as a list."""
        prefix = "sample.keep="
        return [
            f"{prefix}[{argument.removeprefix(prefix)}]"
            if argument.startswith(prefix) and "[" not in argument
            else argument
            for argument in arguments
        ]

    def faults(self, key: str) -> Iterator[str]:
        if self.to is None:
            return
        file = Path(self.to).expanduser()
        if file.suffix != ".jsonl":
            yield f"to={self.to}: must end in .jsonl, as in to=traces.jsonl; its card is written next to it."
        if not file.parent.is_dir():
            yield (
                f"to={self.to}: there is no folder {file.parent}. Make it (mkdir -p {file.parent}), or give another "
                "file."
            )


@dataclass
class ExportTask:
    """The settings of `r1zero export`."""

    checkpoint: str = ""
    """A run (its last checkpoint), one of its checkpoints, or a model/ to push as it is."""
    to: str = ""
    """A new folder, or hub:<org>/<name>."""
    dtype: DType | None = None
    """Precision of the weights; as trained if not set."""
    private: bool = True
    """Whether a new repository on the Hub is private."""
    trust: bool = False
    """Read a checkpoint that another account wrote or changed."""

    def faults(self, key: str) -> Iterator[str]:
        if not self.checkpoint:
            yield (
                "checkpoint is not set. Give a run's folder or one of its checkpoints, as in "
                "checkpoint=runs/quickstart."
            )
        if not self.to:
            yield f"to is not set. Give a new folder, as in to=my_model, or to={HUB}<org>/<name>."
        name = self.to.removeprefix(HUB)
        if self.to.startswith(HUB) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            yield f"to={self.to}: the Hub needs an owner and a name, as in to={HUB}my_org/{name or 'my_model'}."
