"""The verdict on a run in words: is it learning, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo_cli.config.best import is_better_low

CLEAR = 1.96  # standard errors of a difference; a smaller one may be chance
EDGE = 0.1  # share of the steps at each end that a trend compares
EARLY = 20  # steps; a run that is shorter and shows no difference may still learn
NOTICED = 0.1  # relative change that is worth a sentence


def verdict(rows: Sequence[Mapping[str, float]], metric: str) -> dict[str, Any]:
    """`answer` (yes, no, worse, unclear, early), `headline`, `reasons`, and the evaluations `before`, `after`, `best`.

    `metric` is the run's main metric. A difference counts if it is larger than chance explains at 95 %.
    """
    evaluated = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
    steps = [row for row in rows if row["step"] > 0]
    before, after = (evaluated[0], evaluated[-1]) if len(evaluated) > 1 else (None, None)
    best = (min if is_better_low(metric) else max)(evaluated, key=lambda row: row[metric], default=None)
    answer, headline = _answer(before, after, metric, steps)
    reasons = list(_reasons(before, after, best, metric, steps))
    return {
        "answer": answer,
        "headline": headline,
        "reasons": reasons,
        "metric": metric,
        **{name: _point(row, metric) for name, row in (("before", before), ("after", after), ("best", best))},
    }


def _answer(
    before: Mapping[str, float] | None,
    after: Mapping[str, float] | None,
    metric: str,
    steps: Sequence[Mapping[str, float]],
) -> tuple[str, str]:
    if before is None or after is None:
        if trend := _trend("reward/mean", steps):
            return "early", (
                f"Too early to tell: no evaluation yet after training. The training reward went from {trend[0]:.3g} "
                f"to {trend[1]:.3g}."
            )
        return "early", "Too early to tell: there is no evaluation yet after training."
    first, last, name = before[metric], after[metric], spoken(metric)
    change = first - last if is_better_low(metric) else last - first
    values = f"from {shown(first, metric)} to {shown(last, metric)}"
    se = math.hypot(before.get(f"{metric}_se", 0.0), after.get(f"{metric}_se", 0.0))
    if abs(change) > CLEAR * se and change > 0:
        return "yes", f"It is learning: {name} {'fell' if is_better_low(metric) else 'rose'} {values}."
    if abs(change) > CLEAR * se and change < 0:
        return "worse", f"It got worse: {name} {'rose' if is_better_low(metric) else 'fell'} {values}."
    is_same = shown(first, metric) == shown(last, metric)
    if _trend("reward/mean", steps, grew=True):
        moved = f"stayed at {shown(last, metric)}" if is_same else f"went only {values}"
        return "unclear", f"Not clear yet: the training reward rises, but {name} {moved}."
    moved = f"stayed at {shown(last, metric)}" if is_same else f"went {values}, which may be chance"
    if len(steps) < EARLY:
        return "early", f"Too early to tell after {len(steps)} steps: {name} {moved}."
    return "no", f"It is not learning: {name} {moved}."


def _reasons(
    before: Mapping[str, float] | None,
    after: Mapping[str, float] | None,
    best: Mapping[str, float] | None,
    metric: str,
    steps: Sequence[Mapping[str, float]],
) -> Iterator[str]:
    if before and after and f"{metric}_low" in after:
        yield f"95 % intervals: {_interval(before, metric)} before, {_interval(after, metric)} after."
    if before and after and best and best is not after:
        behind = abs(best[metric] - after[metric])
        if behind > CLEAR * after.get(f"{metric}_se", 0.0):
            yield f"It was better at step {best['step']:.0f} ({shown(best[metric], metric)})."
    for name, words in (
        ("reward/mean", "The training reward"),
        ("length/mean", "The length of a response, in tokens,"),
        ("reflection/wait_rate", "The number of self-corrections per response"),
        ("policy/entropy", "The entropy, in nats per token,"),
    ):
        if trend := _trend(name, steps):
            first, last = trend
            verb = "rose" if last > first else "fell"
            yield f"{words} {verb} from {first:.3g} to {last:.3g}."
    truncated = [row["length/truncated"] for row in steps[-10:] if "length/truncated" in row]
    if truncated and sum(truncated) / len(truncated) > NOTICED:
        yield f"{sum(truncated) / len(truncated):.0%} of the last responses were cut at the token limit."


def _trend(name: str, steps: Sequence[Mapping[str, float]], *, grew: bool = False) -> tuple[float, float] | None:
    """The means over the first and last tenth of the steps, if they differ clearly (`grew`: and the last is larger)."""
    values = [row[name] for row in steps if math.isfinite(row.get(name, math.nan))]
    size = max(1, round(EDGE * len(values)))
    if len(values) < 2 * size:
        return None
    first, last = sum(values[:size]) / size, sum(values[-size:]) / size
    is_clear = abs(last - first) > NOTICED * max(abs(first), abs(last))
    return (first, last) if is_clear and (last > first or not grew) else None


def _point(row: Mapping[str, float] | None, metric: str) -> dict[str, float] | None:
    if row is None:
        return None
    names = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    return {"step": row["step"]} | {key: row[name] for key, name in names.items() if name in row}


def _interval(row: Mapping[str, float], metric: str) -> str:
    return f"{shown(row[f'{metric}_low'], metric)} to {shown(row[f'{metric}_high'], metric)}"


def spoken(metric: str) -> str:
    """
    >>> spoken("eval/heldout/avg"), spoken("eval/math500/pass@4")
    ('held-out accuracy', 'math500 pass@4')
    """
    _, name, measure = metric.split("/", 2)
    name = "held-out" if name == "heldout" else name
    return f"{name} {'accuracy' if measure == 'avg' else measure.replace('_', ' ')}"


def shown(value: float, metric: str) -> str:
    return f"{value:.3f}" if metric.endswith(("loss", "margin")) else f"{100 * value:.1f} %"
