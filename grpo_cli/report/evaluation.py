"""The results of a run's evaluations, by benchmark."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = ("avg", "avg_low", "avg_high", "greedy", "num_problems", "num_samples", "length", "truncated")


def evaluations(rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """The last evaluation of each benchmark with an accuracy: its measures, and `pass@` and `maj@` as (k, value)."""
    last: dict[str, Mapping[str, float]] = {}
    for row in rows:
        last |= {name.split("/")[1]: row for name in row if name.startswith("eval/") and name.endswith("/avg")}
    return [_evaluation(name, row) for name, row in last.items()]


def _evaluation(name: str, row: Mapping[str, float]) -> dict[str, Any]:
    prefix = f"eval/{name}/"
    own = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
    found: dict[str, Any] = {"name": name, "step": row["step"]}
    found |= {measure: own[measure] for measure in MEASURES if math.isfinite(own.get(measure, math.nan))}
    for kind in ("pass@", "maj@"):
        ks = sorted(int(key.removeprefix(kind)) for key in own if key.startswith(kind))
        found[kind] = [[k, own[f"{kind}{k}"]] for k in ks]
    return found
