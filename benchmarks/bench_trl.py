"""The same work with TRL's GRPOTrainer: `python benchmarks/bench_trl.py`, with r1zero's extra `bench` installed.

Both have the same model, prompts, lengths and batch, in float32 on a CPU, as one rank and as two. TRL generates with
transformers or with vLLM in its process, with the settings in trl_loop.py. Each way of running TRL takes turns with
r1zero on as many ranks, one pair after the other, because all together would not fit into memory. r1zero is measured
again in each pair. A ratio comes from one pair; r1zero's own figure is the median over all its pairs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import mean, median
from typing import NamedTuple

from bench_step import BUILTIN
from r1zero_loop import TWO_RANKS, Forced, r1zero, synthetic
from relay import Failed, race, relay
from results import run_alone, scratch, table
from trl_loop import MAX_STEPS, trl, trl_until
from workload import WORKLOADS, Workload

WINDOW, RIGHT = 5, 0.8

Rounds = Sequence[Mapping[str, float]]  # the seconds of each runner, in each round


class How(NamedTuple):
    """How TRL is run. With `defaults` it uses gradient checkpointing and corrects for the sampler's probabilities; each
    needs one more pass of the model.
    """

    generation: str  # "transformers" or "vllm"
    defaults: bool
    ranks: int


OURS: dict[str, tuple[list[str], int]] = {"r1zero": ([], 1), "r1zero, two ranks": (TWO_RANKS, 2)}
THEIRS = {
    "TRL, transformers": How("transformers", defaults=False, ranks=1),
    "TRL, vLLM": How("vllm", defaults=False, ranks=1),
    "TRL, vLLM, as it comes": How("vllm", defaults=True, ranks=1),
    "TRL, transformers, two ranks": How("transformers", defaults=False, ranks=2),
    "TRL, vLLM, two ranks": How("vllm", defaults=False, ranks=2),
}


def measure(rounds: int) -> dict[str, dict[str, float | str]]:
    """For each workload, the seconds per step of each runner. For the built-in task, the seconds until four fifths of
    the responses are right: the median over `rounds` seeds. `<runner> / r1zero` is TRL's time divided by that of r1zero
    on as many ranks. A runner that fails has the last line of its error instead of seconds.
    """
    figures = {
        name: in_pairs(
            [runner for runner, how in THEIRS.items() if how.ranks <= workload.ranks], partial(steps, workload, rounds)
        )
        for name, workload in WORKLOADS.items()
    }
    tuned = [runner for runner, how in THEIRS.items() if not how.defaults]
    return figures | {"built-in": in_pairs(tuned, partial(seconds_until_right, rounds))}


def in_pairs(theirs: Iterable[str], measure_pair: Callable[[str, str], Rounds]) -> dict[str, float | str]:
    """The figures of `measure_pair(ours, theirs)` for each of `theirs`, one pair after the other."""
    our_seconds: dict[str, list[float]] = defaultdict(list)
    figures: dict[str, float | str] = {}
    for runner in theirs:
        ours = next(name for name, (_, ranks) in OURS.items() if ranks == THEIRS[runner].ranks)
        try:
            rounds = measure_pair(ours, runner)
        except Failed as failure:
            figures[runner] = failure.summary
            continue
        figures[runner] = median(seconds[runner] for seconds in rounds)
        figures[f"{runner} / r1zero"] = median(seconds[runner] / seconds[ours] for seconds in rounds)
        our_seconds[ours] += [seconds[ours] for seconds in rounds]
    return {name: median(seconds) for name, seconds in our_seconds.items()} | figures


def steps(workload: Workload, rounds: int, ours: str, theirs: str) -> Rounds:
    """The seconds per step of both, in each round."""
    folder = scratch() / workload.name
    overrides, ranks = OURS[ours]
    pair = {
        ours: (r1zero, [*synthetic(workload, folder), *overrides], Forced(workload.lengths), ranks),
        theirs: (trl, str(folder / "model"), workload, *THEIRS[theirs]),
    }
    times = relay(pair, rounds=rounds)
    return [
        dict(zip(times, seconds, strict=True)) for seconds in zip(*(t.seconds for t in times.values()), strict=True)
    ]


def seconds_until_right(seeds: int, ours: str, theirs: str) -> Rounds:
    """For each seed, the seconds from the start of training until the mean accuracy of `WINDOW` steps is `RIGHT`."""

    def is_done(reports: Sequence[Mapping[str, float]]) -> bool:
        last = [report.get("accuracy", report.get("verify/correct")) for report in reports[-WINDOW:]]
        return len(last) == WINDOW and mean(last) >= RIGHT

    def with_seed(seed: int) -> dict[str, float]:
        overrides, ranks = OURS[ours]
        how, task = THEIRS[theirs], [f"seed={seed}", *BUILTIN]
        pair = {
            ours: (r1zero, [*task, *overrides], Forced(), ranks),
            theirs: (trl_until, task, how.generation, how.ranks),
        }
        all_times = race(pair, is_done=is_done, max_steps=MAX_STEPS)
        return {name: sum(times.seconds) for name, times in all_times.items()}

    return [with_seed(seed) for seed in range(seeds)]


def report(figures: Mapping[str, Mapping[str, float | str]]) -> str:
    """The figures as a table in Markdown."""
    rows = [[runner, *(_shown(of_workload, runner) for of_workload in figures.values())] for runner in [*OURS, *THEIRS]]
    units = {"built-in": "s to 80 % right"}
    markdown = table(["", *(f"{name}, {units.get(name, 's per step')}" for name in figures)], rows)
    return f"{markdown}\n\nIn brackets: the seconds divided by those of r1zero on as many ranks, in the same rounds."


def _shown(of_workload: Mapping[str, float | str], runner: str) -> str:
    if runner not in of_workload:
        return ""
    if isinstance(of_workload[runner], str):
        return of_workload[runner]
    ratio = of_workload.get(f"{runner} / r1zero")
    return f"{of_workload[runner]:.2f}" + (f" ({ratio:.2f})" if ratio else "")


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
