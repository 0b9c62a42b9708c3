"""Where a step's time goes: `python benchmarks/bench_step.py`.

Steps of the built-in task, with W&B off line, and of the two synthetic workloads, through r1zero's own loop.
"""

from r1zero_loop import Forced, phases, r1zero, synthetic
from relay import Times, relay
from results import run_alone, scratch, table
from workload import WORKLOADS

BUILTIN = [
    "data.num_heldout=1",
    "eval.every_steps=0",
    "checkpoint.every_steps=0",
    "logger=wandb",
    "logger.mode=offline",
    "steps=1000000",
]


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """The figures of each workload, by name."""
    runners = {"built-in": (r1zero, BUILTIN)}
    runners |= {name: (r1zero, synthetic(w, scratch()), Forced(w.lengths)) for name, w in WORKLOADS.items()}
    return {name: _figures(times) for name, times in relay(runners, rounds=rounds).items()}


def _figures(times: Times) -> dict[str, float]:
    """Medians; shares are of a step's seconds."""
    phase_names = phases(times.seconds[0], times.reports[0])
    return {
        "seconds": times.median,
        "tokens_per_s": times.median_of(lambda seconds, report: report["rollout/tokens"] / seconds),
        "peak_gib": times.median_of(lambda _, report: report["peak_gib"]),
        **{
            f"share/{phase}": times.median_of(lambda s, report, phase=phase: phases(s, report)[phase] / s)
            for phase in phase_names
        },
    }


def report(figures: dict[str, dict[str, float]]) -> str:
    """The figures as tables in Markdown."""
    phase_names = [name for name in next(iter(figures.values())) if name.startswith("share/")]
    plain = table(
        ["workload", "s a step", "tokens/s", "peak GiB"],
        [
            [name, f"{f['seconds']:.2f}", f"{f['tokens_per_s']:,.0f}", f"{f['peak_gib']:.2f}"]
            for name, f in figures.items()
        ],
    )
    shares = table(
        ["workload", *(name.removeprefix("share/") for name in phase_names)],
        [[name, *(f"{f[phase]:.1%}" for phase in phase_names)] for name, f in figures.items()],
    )
    return f"{plain}\n\nShares of a step:\n\n{shares}"


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
