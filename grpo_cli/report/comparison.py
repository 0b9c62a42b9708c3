"""Two or more runs next to each other: is one better, what differs in their settings, which problems flipped."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from grpo_cli.config.best import is_better_low
from grpo_cli.evaluation.spread import paired_bootstrap
from grpo_cli.report.kept import Group
from grpo_cli.report.verdict import shown, spoken

LIKELY_CHANCE = 0.05  # a difference with a larger p-value may be chance
MAX_FLIPPED = 100
DATA = {f"data.{name}" for name in ("path", "source", "subset", "split", "filter", "exclude")}  # held-out problems


def comparison(runs: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Group]]) -> dict[str, Any]:
    """`headline`, `settings` that differ (key and a value for each run) and, for two runs, `p_value`, how it was found
    (`test`) and the held-out problems that one run solves and the other does not (`only_first`, `only_second`).
    """
    names = [run["run"]["name"] for run in runs]
    result: dict[str, Any] = {"names": names, "settings": _differences(runs)}
    points = [run["verdict"]["after"] for run in runs]
    metrics = {run["verdict"]["metric"] for run in runs}
    if len(metrics) > 1 or any(point is None for point in points):
        learning = sum(run["verdict"]["answer"] == "yes" for run in runs)
        return result | {"headline": f"{learning} of {len(runs)} runs are learning. They have no evaluation in common."}
    if any(row["key"] in DATA for row in result["settings"]):
        return result | {"headline": "These runs have different data, so their accuracies cannot be compared."}
    (metric,) = metrics
    values = [point["value"] for point in points]
    best = (min if is_better_low(metric) else max)(range(len(runs)), key=lambda number: values[number])
    if len(runs) > 2:
        return result | {"headline": f"{names[best]} is best: {spoken(metric)} {shown(values[best], metric)}."}
    rates = [_solve_rates(of_run) for of_run in groups]
    shared = [problem for problem in rates[0] if problem in rates[1]]
    p_value, test = _p_value(points, rates, shared)
    other = 1 - best
    both = f"{spoken(metric)} {shown(values[best], metric)} against {shown(values[other], metric)}"
    headline = f"{names[best]} is better than {names[other]}: {both}."
    if values[0] == values[1]:
        headline = f"{names[0]} and {names[1]} are equal: {spoken(metric)} {shown(values[0], metric)}."
    elif p_value is not None and p_value > LIKELY_CHANCE:
        headline = f"{names[best]} and {names[other]} do not differ clearly: {both}, which may be chance."
    return result | {
        "headline": headline,
        "p_value": p_value,
        "test": test,
        "num_shared": len(shared),
        "only_first": [p for p in shared if rates[0][p] >= 0.5 > rates[1][p]][:MAX_FLIPPED],
        "only_second": [p for p in shared if rates[1][p] >= 0.5 > rates[0][p]][:MAX_FLIPPED],
    }


def _differences(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings that differ; a run that keeps the default shows it."""
    changes = [{change["key"]: change["value"] for change in run["run"]["changes"]} for run in runs]
    defaults = {change["key"]: change["default"] for run in runs for change in run["run"]["changes"]}
    rows = [{"key": key, "values": [of_run.get(key, usual) for of_run in changes]} for key, usual in defaults.items()]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _solve_rates(groups: Sequence[Group]) -> dict[str, float]:
    """The share of right responses to each held-out problem, the last time it was sampled."""
    return {
        group["problem"]: sum(response["correct"] is True for response in group["responses"]) / len(group["responses"])
        for group in sorted(groups, key=lambda group: group["step"])
        if group["split"] == "heldout"
    }


def _p_value(
    points: Sequence[Mapping[str, float]], rates: Sequence[Mapping[str, float]], shared: Sequence[str]
) -> tuple[float | None, str]:
    """The probability of a difference this large by chance, and how it was found; None if that is unknown."""
    if len(shared) > 1:
        p_value = paired_bootstrap(*([of_run[problem] for problem in shared] for of_run in rates)).p_value
        return p_value, f"paired bootstrap over the {len(shared)} held-out problems that both runs kept"
    if all("low" in point and "high" in point for point in points):
        errors = [(point["high"] - point["low"]) / 2 / 1.96 for point in points]
        spread = math.hypot(*errors)
        if spread > 0:
            z = abs(points[0]["value"] - points[1]["value"]) / spread
            return 2 * (1 - NormalDist().cdf(z)), "normal approximation from the two 95 % intervals"
    return None, ""
