"""Grade the responses that a run has kept once more, and compare the verdicts with the run's."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from grpo_cli.choices import AnswerMarker, Grader, Sandbox
from grpo_cli.config.compose import to_typed
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DataError
from grpo_cli.progress import progress
from grpo_cli.reward.terms import AccuracyTerm, CodeTerm
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.resume import frozen_settings
from grpo_cli.runs.rollouts import KeptGroup, Split, kept_steps, read_groups, read_step
from grpo_cli.screen import Screen
from grpo_cli.types import BY_RULE, Completion, Problem, Verdict

NUM_SHOWN = 5  # verdicts that differ


def grade_run(run_dir: Path) -> list[dict[str, Any]]:
    """A row with both verdicts for each response that a rule can grade, with the run's own template and reward.

    Programs always run in bubblewrap, and the run's own functions and reward models are left out: somebody else may
    have written its config.yaml. Raises DataError if the run has no such response.
    """
    from grpo_cli.reward.reward import Reward

    frozen_settings(run_dir, "train")  # raises an error if it is not the folder of such a run
    config: TrainConfig = to_typed(read_frozen(run_dir / "config.yaml", is_ours=False), "train")
    by_rule = {name: config.reward.terms.get(name) for name in (AccuracyTerm.name, CodeTerm.name)}
    terms = {name: dict(options) for name, options in by_rule.items() if options}
    if CodeTerm.name in terms:
        terms[CodeTerm.name]["sandbox"] = Sandbox.bwrap
    reward_config = replace(config.reward, terms=terms)
    with Reward(reward_config, config.template, config.rollout.max_new_tokens, config.cluster.device) as reward:
        waiting = [
            (group, sample, reward.submit(_problem(group), Completion((), (), response.text, response.truncated)))
            for group in _groups(run_dir)
            for sample, response in enumerate(group.responses)
            if response.verdict is not Verdict.unjudged
        ]
        rows = []
        with progress(Screen(stderr=True), "grading", len(waiting)) as count:
            for group, sample, future in waiting:
                score, response = future.result(), group.responses[sample]
                rows.append(
                    {
                        "step": group.step,
                        "split": group.split.value,
                        "problem": group.problem,
                        "sample": sample,
                        "verdict": score.verdict.value,
                        "extracted": score.extracted,
                        "verdict_in_run": response.verdict.value,
                        "extracted_in_run": response.extracted,
                    }
                )
                count()
    if not rows:
        raise DataError(f"{run_dir} keeps no responses that a rule can grade (rollouts/). Give another run.")
    return rows


def cases_of_last_step(run_dir: Path) -> list[dict[str, Any]]:
    """The responses of the last step that a rule can grade, as cases of `r1zero grade`."""
    settings = frozen_settings(run_dir, "train")
    template = settings.template
    marker = settings.reward.terms.get(AccuracyTerm.name, {}).get("marker") or template.answer
    split, step = max(((split, step) for split in Split for step in kept_steps(run_dir, split)), key=_newest)
    return [
        {
            "id": f"{group.problem} #{sample}",
            "gold": group.answer,
            "text": template.response_prefix + response.text,
            "marker": AnswerMarker(marker),
            "grader": Grader(group.grader),
            "truncated": response.truncated,
        }
        for group in read_step(run_dir, split, step)
        for sample, response in enumerate(group.responses)
        if response.verdict is not Verdict.unjudged
    ]


def _newest(kept: tuple[Split, int]) -> tuple[int, bool]:
    split, step = kept
    return step, split is Split.train


def _groups(run_dir: Path) -> Iterator[KeptGroup]:
    for split in Split:
        yield from read_groups(run_dir, split)


def _problem(group: KeptGroup) -> Problem:
    return Problem(group.problem, group.question, group.answer, group.grader)


def print_comparison(rows: list[dict[str, Any]]) -> None:
    """Print how often each verdict was given, and the first responses whose verdict differs from the run's."""
    table = Table("verdict", "in the run", "now", title=f"{len(rows)} responses")
    before, now = (Counter(row[key] for row in rows) for key in ("verdict_in_run", "verdict"))
    for verdict in BY_RULE:
        table.add_row(verdict.value, str(before[verdict]), str(now[verdict]))
    console = Screen(highlight=False)
    console.print(table)
    differing = [row for row in rows if row["verdict"] != row["verdict_in_run"]]
    console.print(f"{len(differing)} of {len(rows)} verdicts differ from the run's.")
    for row in differing[:NUM_SHOWN]:
        place = f"step {row['step']}, {row['split']}, problem {row['problem']}, sample {row['sample']}"
        console.print(
            f"{place}: {row['verdict_in_run']} in the run, {row['verdict']} now", markup=False, soft_wrap=True
        )
