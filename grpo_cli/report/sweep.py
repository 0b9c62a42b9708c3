"""The page of a sweep, made of the same parts as a run's: leaderboard, effects, curves, parallel coordinates."""

from collections.abc import Sequence
from typing import Any

from grpo_cli.analysis.sweep import Setting, SweepJob, effects, rank_settings, short_names, swept_keys
from grpo_cli.report.page import page


def sweep_page(name: str, jobs: Sequence[SweepJob]) -> str:
    """The whole page as HTML."""
    return page({"title": name, "runs": [], "sweep": sweep_facts(name, jobs)}, [])


def sweep_facts(name: str, jobs: Sequence[SweepJob]) -> dict[str, Any]:
    """The settings, best first, each with its jobs and their curves as (steps, held-out accuracies); `effects` of each
    value of a parameter; and the jobs that are not `finished`.
    """
    keys = swept_keys(jobs)
    names = short_names(keys)
    return {
        "name": name,
        "keys": [{"key": key, "name": names[key]} for key in keys],
        "has_seeds": any("seed" in job.swept for job in jobs),
        "num_jobs": len(jobs),
        "settings": [_setting(setting, keys) for setting in rank_settings(jobs)],
        "effects": [
            [names[effect.key], effect.value, float(effect.mean), int(effect.num_jobs)] for effect in effects(jobs)
        ],
        "unfinished": [
            {"name": job.folder.name, "status": job.status, "error": job.error or ""}
            for job in jobs
            if job.status != "finished"
        ],
    }


def _setting(setting: Setting, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "values": [setting.swept.get(key, "") for key in keys],
        "mean": setting.mean,
        "spread": setting.spread,
        "greedy": setting.greedy,
        "tokens": setting.tokens,
        "seconds": setting.seconds,
        "num_finished": len(setting.finished),
        "jobs": [job.folder.name for job in setting.jobs],
        "curves": [list(map(list, zip(*job.curve, strict=True))) for job in setting.jobs if job.curve],
    }
