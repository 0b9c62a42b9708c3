"""The facts of claims as one document, for their page, the terminal and programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from grpo_cli.report.page import page
from grpo_cli.science.claims import Claim
from grpo_cli.science.experiment import command_line, finished_runs, spent_s
from grpo_cli.science.statistics import STATISTICS, Runs, curve, summarize
from grpo_cli.science.verdict import verdict

ROLES = ("confirmation", "development", "other")


def science_page(facts: Sequence[Mapping[str, Any]]) -> str:
    """The whole page as HTML."""
    return page({"title": "science", "runs": [], "science": facts}, [])


def claim_facts(claim: Claim) -> dict[str, Any]:
    """The claim, its verdict, and for each role of seeds that has finished ones: the value of each and their summary.

    Raises DataError if a finished run lacks a metric that the claim needs.
    """
    finished = dict(finished_runs(claim))
    function = STATISTICS[claim.statistic]
    values = {seed: function(runs, **claim.options) for seed, runs in finished.items()}
    return {
        "name": claim.name,
        "claim": claim.claim,
        "source": claim.source,
        "scope": claim.scope,
        "verdict": verdict(claim, values).value,
        "statistic": claim.statistic,
        "meaning": (function.__doc__ or "").strip().split("\n\n")[0],
        "options": claim.options,
        "limits": asdict(claim.limits),
        "seeds": asdict(claim.seeds),
        "sets": [_seed_set(role, of_role) for role in ROLES if (of_role := _of_role(claim, role, values))],
        "expected_minutes": claim.minutes,
        "spent_s": spent_s(claim),
        "command": command_line([claim.name], "confirm"),
        "runs": [{"arm": arm, "line": claim.command(arm, claim.seeds.confirmation[0])} for arm in claim.runs],
        "curves": _curves(claim, finished),
    }


def science_table(facts: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each claim and role of its seeds: the effect with its interval, and the verdict."""
    table = Table(
        "claim", "seeds", "median", "95 % interval", "range", "above 0", "verdict", "minutes of runs", box=box.MARKDOWN
    )
    for claim in facts:
        rows = claim["sets"] or [None]
        for number, found in enumerate(rows):
            ends = [claim["verdict"], f"{claim['spent_s'] / 60:.0f}"] if number == 0 else ["", ""]
            table.add_row(escape(claim["name"]) if number == 0 else "", *_cells(found), *ends)
    return table


def _cells(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["none finished", "", "", "", ""]
    interval = found["interval"]
    return [
        f"{found['num_seeds']} {found['role']}",
        f"{found['median']:+.3f}",
        f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "",
        f"{found['low']:+.3f} to {found['high']:+.3f}",
        f"{sum(value > 0 for _, value in found['values'])} of {found['num_seeds']}",
    ]


def _of_role(claim: Claim, role: str, values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if claim.role(seed) == role}


def _seed_set(role: str, values: Mapping[int, float]) -> dict[str, Any]:
    return {"role": role, "values": [list(item) for item in values.items()]} | asdict(summarize(list(values.values())))


def _curves(claim: Claim, finished: Mapping[int, Runs]) -> list[dict[str, Any]]:
    """For each metric to show, the steps and values of every run that has it."""
    named = claim.options.get("metrics") or [claim.options[key] for key in ("metric",) if key in claim.options]
    return [
        {
            "metric": metric,
            "runs": [
                [arm, seed, *curve(run, metric)]
                for seed, runs in finished.items()
                for arm, run in runs.items()
                if any(metric in row for row in run.rows)
            ],
        }
        for metric in [*named, *claim.curves]
        if finished
    ]
