"""How the cost of a step grows: `python benchmarks/bench_scaling.py`.

With prompts, responses a prompt, tokens a response and ranks, one at a time, from 16 x 8 responses of 64 tokens. Draws
results/scaling.png.
"""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from r1zero_loop import TWO_RANKS, Forced, phases, r1zero, synthetic
from relay import relay
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


def measure(rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """The figures at each value of each axis."""
    figures = {}
    for axis, workloads in AXES.items():
        runners = {f"{n}": (r1zero, synthetic(w, scratch()), Forced(w.lengths)) for n, w in workloads.items()}
        figures[axis] = _taken(runners, rounds)
    base = synthetic(EQUAL, scratch())
    runners = {f"{n}": (r1zero, [*base, *cluster], Forced(EQUAL.lengths), n) for n, cluster in RANKS.items()}
    figures["ranks"] = _taken(runners, rounds)
    _draw(figures)
    return figures


def _taken(runners: dict[str, tuple], rounds: int) -> dict[int, dict[str, float]]:
    """Medians; microseconds are of a generated token, of the whole step and of its two heavy parts."""

    def us_a_token(times, *names: str) -> float:
        def of_step(seconds: float, report) -> float:
            parts = phases(seconds, report)
            return 1e6 * sum(parts[name] for name in names or parts) / report["rollout/tokens"]

        return times.median_of(of_step)

    return {
        int(value): {
            "seconds": times.median,
            "us_a_token": us_a_token(times),
            "us_a_token/rollout": us_a_token(times, "rollout"),
            "us_a_token/network": us_a_token(times, "forward", "backward"),
            "peak_gib": times.median_of(lambda _, report: report["peak_gib"]),
        }
        for value, times in relay(runners, rounds=rounds, warm_up=1).items()
    }


def _draw(figures: dict[str, dict[int, dict[str, float]]]) -> None:
    """Time a token over each axis."""
    drawn, plots = pyplot.subplots(1, len(figures), figsize=(3.2 * len(figures), 3), sharey=True)
    for plot, (axis, values) in zip(plots, figures.items(), strict=True):
        for name, label in (("", "step"), ("/rollout", "rollout"), ("/network", "forward, backward")):
            plot.plot([str(value) for value in values], [f[f"us_a_token{name}"] for f in values.values()], label=label)
        plot.set_xlabel(axis)
    plots[0].set_ylim(bottom=0)
    plots[0].set_ylabel("microseconds a token")
    plots[0].legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    drawn.savefig(PICTURE, dpi=120, bbox_inches="tight")


def report(figures: dict[str, dict[int, dict[str, float]]]) -> str:
    """The figures as a table in Markdown, and the picture."""
    rows = [
        [
            axis,
            f"{value}",
            f"{f['seconds']:.2f}",
            *(f"{f[f'us_a_token{name}']:.0f}" for name in ("", "/rollout", "/network")),
            f"{f['peak_gib']:.2f}",
        ]
        for axis, values in figures.items()
        for value, f in values.items()
    ]
    header = ["axis", "value", "s a step", "µs a token", "of it rollout", "forward, backward", "peak GiB"]
    return f"{table(header, rows)}\n\n![microseconds a token]({PICTURE.name})"


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
