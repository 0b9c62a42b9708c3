"""Where a step's time goes: `python benchmarks/bench_step.py`.

Times steps of the built-in task, with W&B offline, and of the synthetic workloads in r1zero's own loop. They run one
after the other, because nothing is compared.
"""

from r1zero_loop import Forced, phases, r1zero, synthetic
from relay import Failed, Times, relay
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


def measure(rounds: int) -> dict[str, dict[str, float | str]]:
    """The figures of each workload, by name; if one fails, `failed` says why."""
    runners = {"built-in": (r1zero, BUILTIN)}
    runners |= {name: (r1zero, synthetic(w, scratch() / name), Forced(w.lengths)) for name, w in WORKLOADS.items()}
    return {name: _measure(name, runner, rounds) for name, runner in runners.items()}


def _measure(name: str, runner: tuple, rounds: int) -> dict[str, float | str]:
    try:
        return _figures(relay({name: runner}, rounds=rounds)[name])
    except Failed as failure:
        return {"failed": failure.summary}


def _figures(times: Times) -> dict[str, float]:
    """Medians; `share/...` are shares of a step's seconds."""
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


def report(figures: dict[str, dict[str, float | str]]) -> str:
    """The figures as tables in Markdown."""
    measured = {name: f for name, f in figures.items() if "failed" not in f}
    failed = [[name, f["failed"]] for name, f in figures.items() if "failed" in f]
    phase_names = [key for key in next(iter(measured.values()), {}) if key.startswith("share/")]
    summary = table(
        ["workload", "s per step", "tokens/s", "peak GiB"],
        [
            [name, f"{f['seconds']:.2f}", f"{f['tokens_per_s']:,.0f}", f"{f['peak_gib']:.2f}"]
            for name, f in measured.items()
        ]
        + failed,
    )
    shares = table(
        ["workload", *(name.removeprefix("share/") for name in phase_names)],
        [[name, *(f"{f[phase]:.1%}" for phase in phase_names)] for name, f in measured.items()],
    )
    return f"{summary}\n\nShares of a step:\n\n{shares}"


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
