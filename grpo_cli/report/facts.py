"""The facts of a run as one JSON document; docs/report.md describes it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grpo_cli.analysis.reflection import SELF_CORRECTIONS
from grpo_cli.analysis.report import read_metrics
from grpo_cli.choices import RatioLevel, Surrogate
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.commands import COMMANDS
from grpo_cli.config.compose import flat_settings
from grpo_cli.errors import DataError
from grpo_cli.jsonl import read_objects
from grpo_cli.report.cost import cost
from grpo_cli.report.curves import curves
from grpo_cli.report.evaluation import evaluations
from grpo_cli.report.settings import advantage_settings, describe
from grpo_cli.report.verdict import verdict
from grpo_cli.runs.code import recorded_code
from grpo_cli.runs.listing import State, read_run
from grpo_cli.runs.resume import checkpoint_folders, step_of

SCHEMA = 1  # of the document


def run_facts(folder: Path, state: State | None = None) -> dict[str, Any]:
    """What `r1zero report --json` prints about one run, without its groups.

    `state` is the run's state, if its own process asks. Raises R1ZeroError if the folder holds a damaged run or none.
    """
    run = read_run(folder)
    if run.state is State.unreadable:
        raise DataError(f"{folder}: config.yaml or metrics.jsonl is damaged, or another version of r1zero wrote it.")
    if not COMMANDS[run.command].saves:
        raise DataError(f"{folder} holds a run of `r1zero {run.command}`, which trains nothing and has no page.")
    config = run.config
    file = folder / "metrics.jsonl"
    rows = read_metrics(file) if file.is_file() else []
    findings = _findings(folder)
    return {
        "schema": SCHEMA,
        "run": {
            "folder": str(folder),
            "name": folder.resolve().name,
            "command": run.command,
            "state": (state or run.state).value,
            "step": run.step,
            "steps": run.steps,
            "resume": "" if state else run.resume,
            "size": _size(config),
            "code": recorded_code(folder),
            **_totals(rows),
            **describe(config, run.command),
        },
        "verdict": verdict(rows, run.metric),
        "findings": findings,
        "figures": _figures(rows),
        "checkpoints": sorted(step_of(path) for path in checkpoint_folders(folder)),
        "curves": curves(rows),
        "advantage": _advantage(config),
        "evaluations": evaluations(rows),
        "cost": cost(config),
        "self_corrections": list(SELF_CORRECTIONS),
    }


def _size(config: Any) -> str:
    """What one step takes, in words."""
    if rollout := getattr(config, "rollout", None):
        return (
            f"{rollout.prompts_per_step} prompts x {rollout.group_size} responses of at most "
            f"{rollout.max_new_tokens:,} tokens, learning rate {config.optimizer.lr:g}"
        )
    return f"{config.batch_size} examples, learning rate {config.optimizer.lr:g}"


def _findings(folder: Path) -> list[dict[str, Any]]:
    """The health findings, each with `step`, `name`, `words` and `fix`."""
    file = folder / "health.jsonl"
    return [row for _, row in read_objects(file, drop_unfinished=True)] if file.is_file() else []


def _totals(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`tokens` generated in training, and `seconds` of all steps."""
    return {
        name: math.fsum(row[metric] for row in rows if math.isfinite(row.get(metric, math.nan)))
        for name, metric in (("tokens", "rollout/tokens"), ("seconds", "time/step"))
    }


# Metric, what it is called, and its unit, for the numbers at the top.
FIGURES = (
    ("eval/heldout/avg", "held-out accuracy", "share"),
    ("eval/heldout/greedy", "greedy accuracy", "share"),
    ("eval/heldout/loss", "held-out loss", "number"),
    ("eval/heldout/pair_accuracy", "pairs in the right order", "share"),
    ("eval/heldout/length", "tokens per response", "number"),
    ("eval/heldout/wait_rate", "self-corrections", "number"),
)


def _figures(rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """The main numbers of the first and the last evaluation."""
    figures = []
    for metric, name, unit in FIGURES:
        found = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
        if found:
            low, high = (found[-1].get(f"{metric}_{end}") for end in ("low", "high"))
            figures.append(
                {"metric": metric, "name": name, "unit": unit, "before": found[0][metric], "after": found[-1][metric]}
                | ({"low": low, "high": high} if low is not None and high is not None else {})
            )
    return figures


def _advantage(config: Any) -> dict[str, Any] | None:
    """The run's own advantage settings, and limits of tokens and ratios; None if it has no rollouts."""
    if not hasattr(config, "algorithm"):
        return None
    algorithm = config.algorithm
    return advantage_settings(flat_settings(OmegaConf.structured(config))) | {
        "max_new_tokens": config.rollout.max_new_tokens,
        "overlong": algorithm.overlong.value,
        "clip": _clip_bounds(algorithm),
    }


def _clip_bounds(algorithm: AlgorithmConfig) -> list[float | None] | None:
    """The bounds of a token's ratio, as in `policy_loss`; the lower one may be None. None if tokens have none."""
    if algorithm.functions.surrogate or algorithm.ratio.level is not RatioLevel.token:
        return None
    high = 1 + (algorithm.epsilon if algorithm.epsilon_high is None else algorithm.epsilon_high)
    bounds: dict[Surrogate, list[float | None]] = {
        Surrogate.clip: [1 - algorithm.epsilon, high],
        Surrogate.cispo: [None, high],
    }
    return bounds.get(algorithm.surrogate)
