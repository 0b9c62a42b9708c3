"""How the cost of a step grows: `python benchmarks/bench_scaling.py`.

Starting from 16 x 8 responses of 64 tokens, one of these changes at a time: prompts, responses per prompt, tokens per
response, ranks. One and two ranks take turns; the sizes are measured one after the other, because all of them together
would not fit into memory. Draws results/scaling.png.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from r1zero_loop import TWO_RANKS, Forced, phases, r1zero, synthetic
from relay import Failed, Times, relay
from results import RESULTS, run_alone, scratch, table
from workload import WORKLOADS, Workload

PICTURE = RESULTS / "scaling.png"
EQUAL = WORKLOADS["equal"]
AXES: dict[str, dict[int, Workload]] = {
    "prompts": {n: replace(EQUAL, prompts=n) for n in (8, 16, 32, 64, 128, 256)},
    "responses a prompt": {n: replace(EQUAL, group_size=n) for n in (4, 8, 16, 32, 64)},
    "tokens a response": {n: replace(EQUAL, mean=n, longest=n) for n in (32, 64, 128, 256, 512)},
}
RANKS = {1: [], 2: TWO_RANKS}


def measure(rounds: int) -> dict[str, dict[int, dict[str, float | str]]]:
    """The figures for each value of each axis; if one fails, `failed` says why."""
    figures = {
        axis: {n: _measure({n: _runner(w)}, rounds)[n] for n, w in sizes.items()} for axis, sizes in AXES.items()
    }
    figures["ranks"] = _measure({n: _runner(EQUAL, cluster, n) for n, cluster in RANKS.items()}, rounds)
    _draw(figures)
    return figures


def _runner(workload: Workload, cluster: Sequence[str] = (), ranks: int = 1) -> tuple:
    overrides = [*synthetic(workload, scratch() / workload.name), *cluster]
    return r1zero, overrides, Forced(workload.lengths), ranks


def _measure(runners: Mapping[int, tuple], rounds: int) -> dict[int, dict[str, float | str]]:
    """The figures of runners that take turns."""
    try:
        all_times = relay({f"{value}": runner for value, runner in runners.items()}, rounds=rounds, warm_up=1)
    except Failed as failure:
        return {value: {"failed": f"failed: {failure.last_line}"} for value in runners}
    return {int(value): _figures(times) for value, times in all_times.items()}


def _figures(times: Times) -> dict[str, float]:
    """Medians: seconds per step, GiB, and microseconds per token of the whole step and of its two largest parts."""

    def us_a_token(*names: str) -> float:
        def of_step(seconds: float, report: Mapping[str, float]) -> float:
            parts = phases(seconds, report)
            return 1e6 * sum(parts[name] for name in names or parts) / report["rollout/tokens"]

        return times.median_of(of_step)

    return {
        "seconds": times.median,
        "us_a_token": us_a_token(),
        "us_a_token/rollout": us_a_token("rollout"),
        "us_a_token/network": us_a_token("forward", "backward"),
        "peak_gib": times.median_of(lambda _, report: report["peak_gib"]),
    }


def _draw(figures: dict[str, dict[int, dict[str, float | str]]]) -> None:
    """Plot the time per token over each axis, without failed values."""
    drawn, plots = pyplot.subplots(1, len(figures), figsize=(3.2 * len(figures), 3), sharey=True)
    for plot, (axis, all_values) in zip(plots, figures.items(), strict=True):
        values = {value: f for value, f in all_values.items() if "failed" not in f}
        for name, label in (("", "step"), ("/rollout", "rollout"), ("/network", "forward, backward")):
            plot.plot([str(value) for value in values], [f[f"us_a_token{name}"] for f in values.values()], label=label)
        plot.set_xlabel(axis)
    plots[0].set_ylim(bottom=0)
    plots[0].set_ylabel("microseconds per token")
    plots[0].legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    drawn.savefig(PICTURE, dpi=120, bbox_inches="tight")


def report(figures: dict[str, dict[int, dict[str, float | str]]]) -> str:
    """The figures as a table in Markdown, and the plot."""
    rows = [[axis, f"{value}", *_cells(f)] for axis, values in figures.items() for value, f in values.items()]
    header = ["axis", "value", "s per step", "µs per token", "rollout", "forward, backward", "peak GiB"]
    return f"{table(header, rows)}\n\n![microseconds per token]({PICTURE.name})"


def _cells(f: Mapping[str, float | str]) -> list[str]:
    if "failed" in f:
        return [f["failed"]]
    us_a_token = (f"{f[f'us_a_token{name}']:.0f}" for name in ("", "/rollout", "/network"))
    return [f"{f['seconds']:.2f}", *us_a_token, f"{f['peak_gib']:.2f}"]


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
