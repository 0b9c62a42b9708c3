"""The curves of a run: which metrics are drawn together, and their values by step."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_ROWS = 1500  # a longer run shows every k-th step, and every step with an evaluation
SHARE, NUMBER, SECONDS = "share", "number", "seconds"

# Title, unit, then (metric, label); `*` in a metric stands for any name, which becomes the label.
# Metrics that a run does not have are left out, and so are panels without any.
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Accuracy",
        SHARE,
        (
            ("eval/heldout/avg", "held-out"),
            ("verify/correct", "training"),
            ("eval/heldout/greedy", "held-out, greedy"),
        ),
    ),
    ("Benchmarks", SHARE, (("eval/*/avg", ""),)),
    ("Loss", NUMBER, (("eval/heldout/loss", "held-out"), ("loss", "training"))),
    ("Pairs in the right order", SHARE, (("eval/heldout/pair_accuracy", "held-out"),)),
    ("Reward", NUMBER, (("reward/mean", "total"), ("reward_term/*/mean", ""), ("reward/*", ""))),
    ("Tokens of a response", NUMBER, (("length/mean", "all"), ("length/correct", "right"), ("length/wrong", "wrong"))),
    (
        "Self-corrections per response",
        NUMBER,
        (("reflection/wait_rate", "training"), ("eval/heldout/wait_rate", "held-out")),
    ),
    (
        "Cut, unreadable, out of time",
        SHARE,
        (
            ("length/truncated", "cut at the limit"),
            ("verify/unparsable", "no answer that can be read"),
            ("verify/timeout", "out of time"),
        ),
    ),
    (
        "Groups that teach nothing",
        SHARE,
        (("group/agreeing", "all rewards equal"), ("group/all_right", "all right"), ("group/all_wrong", "all wrong")),
    ),
    ("Entropy, nats per token", NUMBER, (("policy/entropy", "policy"),)),
    ("KL per token, nats", NUMBER, (("policy/kl_ref", "to the reference"), ("policy/kl_teacher", "to the teacher"))),
    ("Norm of the gradient", NUMBER, (("policy/grad_norm", "before clipping"),)),
    ("Clipped tokens", SHARE, (("policy/clip_low", "at the lower bound"), ("policy/clip_high", "at the upper bound"))),
    (
        "Sampler and trainer differ by, nats",
        NUMBER,
        (("sampler/logprob_diff_mean", "mean"), ("sampler/logprob_diff_max", "largest")),
    ),
    ("Age of the trained tokens, updates", NUMBER, (("staleness/mean", "mean"), ("staleness/max", "oldest"))),
    (
        "Seconds by phase",
        SECONDS,
        (
            ("time/step", "whole step"),
            ("time/rollout", "rollout"),
            ("time/update", "update"),
            ("time/wait", "wait for the next rollout"),
            ("time/sync", "weight sync"),
            ("time/reward", "reward"),
        ),
    ),
    (
        "Tokens per second",
        NUMBER,
        (
            ("perf/tokens_per_s", "whole step"),
            ("perf/generation_tokens_per_s", "generation"),
            ("perf/training_tokens_per_s", "training"),
        ),
    ),
    ("Model FLOPs utilisation", SHARE, (("perf/mfu", "update"),)),
    ("Memory, GiB", NUMBER, (("perf/peak_memory_gib", "most used"),)),
    ("Learning rate", NUMBER, (("policy/lr", "optimizer"),)),
)
NOT_TERMS = ("reward/mean", "reward/group_std", "reward/std", "reward/min", "reward/max")
HELDOUT_AGAIN = "eval/heldout/avg"


def curves(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """`steps`, and `panels` with their series; a value is null if the step does not have it."""
    shown = _thinned(rows)
    present = {name for row in shown for name in row}
    panels = []
    for title, unit, wanted in PANELS:
        named = {name: label for metric, label in wanted for name, label in _matches(metric, label, present)}
        if title == "Benchmarks":
            named.pop(HELDOUT_AGAIN, None)
        series = [_series(name, label, shown) for name, label in named.items()]
        series = [curve for curve in series if any(curve["values"])]  # a curve of zeros says nothing
        if series:
            panels.append({"title": title, "unit": unit, "series": series})
    return {"steps": [row["step"] for row in shown], "rows": len(rows), "panels": panels}


def _thinned(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    every = math.ceil(len(rows) / MAX_ROWS)
    is_evaluated = [any(name.startswith("eval/") for name in row) for row in rows]
    return [
        row for number, row in enumerate(rows) if number % every == 0 or number == len(rows) - 1 or is_evaluated[number]
    ]


def _matches(metric: str, label: str, present: set[str]) -> Iterator[tuple[str, str]]:
    if "*" not in metric:
        if metric in present:
            yield metric, label
        return
    pattern = re.compile(re.escape(metric).replace(r"\*", "([^/]+)"))
    for name in sorted(present):
        if (found := pattern.fullmatch(name)) and name not in NOT_TERMS:
            yield name, found[1]


def _series(name: str, label: str, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A curve; an evaluation's mean also has the ends of its 95 % interval."""
    curve = {"metric": name, "label": label, "values": [_rounded(row.get(name)) for row in rows]}
    if name.endswith("/avg"):
        curve["low"] = [_rounded(row.get(f"{name}_low")) for row in rows]
        curve["high"] = [_rounded(row.get(f"{name}_high")) for row in rows]
    return curve


def _rounded(value: float | None) -> float | None:
    """Five digits: more cannot be seen."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
