"""The metrics of a run's evaluations, of which one chooses the checkpoint that is kept as the best."""

from collections.abc import Iterable, Iterator
from typing import Any

from grpo_cli.config.schema import EvalConfig, RewardModelTask, TrainConfig

MEASURES = (
    *("avg", "avg_se", "avg_low", "avg_high", "length", "truncated", "well_formed", "unparsable", "timeout", "skipped"),
    "wait_rate",
)
BETTER_LOW = ("loss", "avg_se", "truncated", "unparsable", "timeout", "skipped")


def is_better_low(metric: str) -> bool:
    return metric.rsplit("/", 1)[-1] in BETTER_LOW


def evaluation_metrics(config: Any) -> list[str]:
    """The names of the metrics that each evaluation of this run has."""
    if isinstance(config, RewardModelTask):
        return [f"eval/heldout/{name}" for name in ("pair_accuracy", "loss", "margin")]
    heldout = [*_measured(config.eval, 1), "greedy"] if isinstance(config, TrainConfig) else ["loss"]
    names = [f"eval/heldout/{name}" for name in heldout]
    return names + [
        f"eval/{name}/{metric}" for name in config.benchmark for metric in _measured(config.eval, config.eval.n)
    ]


def best_faults(config: Any) -> Iterator[str]:
    """What is wrong with checkpoint.keep_best."""
    best, known = config.checkpoint.keep_best, evaluation_metrics(config)
    if best is not None and best not in known:
        shown = ", ".join(name for name in known if not name.endswith(("_se", "_low", "_high")))
        yield (
            f"checkpoint.keep_best={best}: is no metric of this run's evaluations. Set "
            f"checkpoint.keep_best={known[0]}, for example; there are {shown}."
        )


def _measured(sampling: EvalConfig, n: int) -> Iterable[str]:
    ks = sorted({*(1 << power for power in range(n.bit_length())), n})
    yield from MEASURES
    yield from (f"pass@{k}" for k in ks)
    yield from (f"maj@{k}" for k in ks[1:])
    if sampling.language is not None:
        yield "language"
