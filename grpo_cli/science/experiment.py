"""Runs what a claim still needs, and reads what its runs left."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from grpo_cli.analysis.report import read_metrics
from grpo_cli.errors import ConfigError
from grpo_cli.jsonl import as_object
from grpo_cli.pipeline.check import check_stages
from grpo_cli.pipeline.run import R1ZERO, progress_faults, read_progress, run_stages
from grpo_cli.pipeline.stages import Stage, stages_of
from grpo_cli.runs.lock import LAUNCHER_LOCK, locked
from grpo_cli.science.claims import FOLDER, Claim
from grpo_cli.science.statistics import RunResult, Runs


def claim_folder(claim: Claim) -> Path:
    """Where the runs of a claim are; absolute, since their settings contain it."""
    return (FOLDER / claim.name).absolute()


def run_name(arm: str, seed: int) -> str:
    return f"{arm}_{seed}"


def stages_of_claim(claim: Claim, seeds: Sequence[int]) -> list[Stage]:
    """The runs of a claim, all arms of a seed before the next seed. Raises ConfigError if a line is not a command."""
    return [
        stage
        for seed in dict.fromkeys(seeds)
        for stage in stages_of(
            {"seed": seed, "stages": {run_name(arm, seed): line for arm, line in claim.runs.items()}},
            claim_folder(claim),
        )
    ]


def check_claim(claim: Claim, seeds: Sequence[int]) -> None:
    """Compose and check the settings of the first seed's runs, and compare all with those that were started before.

    Raises ConfigError with all faults.
    """
    stages, folder = stages_of_claim(claim, seeds), claim_folder(claim)
    progress = read_progress(folder)
    if faults := list(progress_faults(stages, progress)):
        advice = f"Change {claim.name} back, or remove {folder} to run the claim as it is now."
        raise ConfigError("\n".join([*faults, advice]))
    if any(not progress.get(stage.name, {}).get("done") for stage in stages):
        check_stages(stages[: len(claim.runs)], folder, on_this_machine=True)


def run_claim(claim: Claim, seeds: Sequence[int], resume: str, runner: Sequence[str] = R1ZERO) -> None:
    """Run what is not done, which may take hours; a run that was stopped resumes. `resume` is the command to continue.

    Raises the errors of `run_stages`.
    """
    folder = claim_folder(claim)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LAUNCHER_LOCK, wait_s=0):
        progress = read_progress(folder)
        at_once = min(claim.at_once, os.cpu_count() or 1)
        run_stages(stages_of_claim(claim, seeds), progress, folder, resume, runner, at_once)


def finished_runs(claim: Claim) -> Iterator[tuple[int, Runs]]:
    """Each seed of which all arms are done, with their results. Raises DataError if a file of theirs is damaged."""
    folder = claim_folder(claim)
    done = [name for name, entry in read_progress(folder).items() if entry["done"]]
    first_arm = next(iter(claim.runs))
    seeds = [int(name.removeprefix(f"{first_arm}_")) for name in done if _is_run_of(first_arm, name)]
    for seed in sorted(seeds):
        if all(run_name(arm, seed) in done for arm in claim.runs):
            yield seed, {arm: read_run_result(folder / run_name(arm, seed)) for arm in claim.runs}


def read_run_result(folder: Path) -> RunResult:
    """The metrics and the settings in a run folder; a run that only samples has neither."""
    metrics, config = folder / "metrics.jsonl", folder / "config.yaml"
    settings = OmegaConf.to_container(OmegaConf.load(config)) if config.is_file() else {}
    return RunResult(folder, read_metrics(metrics) if metrics.is_file() else [], as_object(settings, str(folder)))


def spent_s(claim: Claim) -> float:
    """The seconds of all runs of a claim so far."""
    return sum(entry["seconds"] for entry in read_progress(claim_folder(claim)).values())


def command_line(claims: Sequence[str], seeds: str) -> str:
    """The command that runs these claims."""
    return shlex.join(["r1zero", "science", *claims, f"seeds={seeds}"])


def _is_run_of(arm: str, name: str) -> bool:
    return name.startswith(f"{arm}_") and name.removeprefix(f"{arm}_").isdecimal()
