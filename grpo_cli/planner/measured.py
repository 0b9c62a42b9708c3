"""The times and lengths of an earlier run, to compare with an estimate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from grpo_cli.analysis.report import read_metrics
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import ConfigError
from grpo_cli.planner.duration import Lengths, assumed_lengths


@dataclass(frozen=True)
class Measured:
    """Medians over the steps of a run."""

    num_steps: int
    rollout: float  # seconds, as all below
    update: float
    sync: float
    step: float  # without evaluation
    lengths: Lengths


def read_measured(run_dir: Path, config: TrainConfig) -> Measured:
    """The medians over the steps of the run in `run_dir`. Raises ConfigError if it has no finished step."""
    file = run_dir / "metrics.jsonl"
    steps = [row for row in read_metrics(file) if "time/update" in row] if file.is_file() else []
    if not steps:
        raise ConfigError(f"{run_dir} has no finished step to compare with. Leave out resume=, or give another run.")

    def over_steps(name: str) -> float:
        return median(row[name] for row in steps)

    return Measured(
        num_steps=len(steps),
        rollout=over_steps("time/rollout"),
        update=over_steps("time/update"),
        sync=over_steps("time/sync"),
        step=median(row["time/step"] - row.get("time/eval", 0.0) for row in steps),
        lengths=_lengths(steps, config),
    )


def _lengths(steps: Sequence[Mapping[str, float]], config: TrainConfig) -> Lengths:
    assumed = assumed_lengths(config)
    response = median(row["length/mean"] for row in steps)
    completions = config.rollout.prompts_per_step * config.rollout.group_size
    trained = median(row["perf/trained_tokens"] for row in steps) / config.algorithm.num_epochs
    return Lengths(
        prompt=assumed.prompt,
        response=response,
        longest=median(row["length/max"] for row in steps),
        trained=min(1.0, trained / (completions * (assumed.prompt + response))),
    )
