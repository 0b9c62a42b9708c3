"""The names of evaluation metrics; `checkpoint.keep_best` is one of them."""

from collections.abc import Iterator, Mapping, Sequence

from grpo_cli.config.run import CheckpointConfig
from grpo_cli.config.sampling import EvalConfig

MEASURES = (
    *("avg", "avg_se", "avg_low", "avg_high", "length", "truncated", "well_formed", "unparsable", "timeout", "skipped"),
    "wait_rate",
)
LOWER_IS_BETTER = ("loss", "avg_se", "truncated", "unparsable", "timeout", "skipped")


def is_better_low(metric: str) -> bool:
    return metric.rsplit("/", 1)[-1] in LOWER_IS_BETTER


def heldout_metrics(names: Sequence[str]) -> list[str]:
    return [f"eval/heldout/{name}" for name in names]


def benchmark_metrics(benchmarks: Mapping[str, object], sampling: EvalConfig) -> list[str]:
    """The names of all metrics of the benchmarks."""
    return [f"eval/{name}/{metric}" for name in benchmarks for metric in measured(sampling, sampling.n)]


def measured(sampling: EvalConfig, n: int) -> Iterator[str]:
    """The names of the measures for `n` responses to each problem."""
    ks = sorted({*(1 << power for power in range(n.bit_length())), n})
    yield from MEASURES
    yield from (f"pass@{k}" for k in ks)
    yield from (f"maj@{k}" for k in ks[1:])
    if sampling.language is not None:
        yield "language"


def keep_best_faults(checkpoint: CheckpointConfig, known: Sequence[str]) -> Iterator[str]:
    """The fault if checkpoint.keep_best is not one of the `known` metrics."""
    if checkpoint.keep_best is not None and checkpoint.keep_best not in known:
        shown = ", ".join(name for name in known if not name.endswith(("_se", "_low", "_high")))
        yield (
            f"checkpoint.keep_best={checkpoint.keep_best}: this run's evaluations have no such metric. Set "
            f"checkpoint.keep_best={known[0]}, for example. The metrics are {shown}."
        )
