"""`r1zero train`: check the settings, create the run folder, start the ranks."""

import os
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from grpo_cli.choices import AdvantageReward, Grader, Select
from grpo_cli.commands import learning_run
from grpo_cli.commands.data_check import check_prompts, data_warnings, unknown_text_warnings
from grpo_cli.commands.hydra_job import earlier_objective, given_keys, in_sweep
from grpo_cli.commands.plan import long_run_warnings
from grpo_cli.commands.start_checks import check_replay
from grpo_cli.config.grammar import resuming
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.problems import load_problem_set
from grpo_cli.errors import ConfigError
from grpo_cli.printing import say
from grpo_cli.reward.functions import check_functions
from grpo_cli.reward.terms import FunctionTerm, ModelTerm, typed_terms
from grpo_cli.types import Problem


def run(composed: DictConfig) -> float:
    """Train. Returns the final held-out accuracy, the objective for a Hydra sweeper.

    A run, or a job of a sweep, that finished in an earlier start is not run again.
    """
    config: TrainConfig = learning_run.settings("train", composed)
    resumes = in_sweep() or (config.resume.run != "never" and (Path(config.run.dir) / "model").is_dir())
    if resumes and (objective := earlier_objective(config)) is not None:
        longer = f"{resuming(Path(config.run.dir))} steps={2 * config.steps}"
        print(f"{config.run.dir} has already finished its {config.steps} steps. To train longer: r1zero train {longer}")
        return objective
    problems = load_problem_set(config.data, config.seed)  # raises for faulty data before anything heavy starts
    check_prompts(config, problems)
    if fault := ungraded_prompts_error(problems.train, config):
        raise ConfigError(fault)
    check_replay(config, problems.train)
    check_functions(
        config.reward, problems.train[0], "data.source_columns" if config.data.path is None else "data.columns"
    )
    if any(vars(config.algorithm.functions).values()):
        from grpo_cli.training.function_checks import check_functions as check_own_functions  # imports torch

        check_own_functions(config.algorithm)
    for name, benchmark in config.benchmark.items():
        load_benchmark(name, benchmark)
    in_slurm_job = "SLURM_JOB_ID" in os.environ and not in_sweep()
    for warning in (
        *config.warnings(given_keys(), in_slurm_job=in_slurm_job),
        *data_warnings(config, len(problems.train)),
        *unknown_text_warnings(config, problems),
        *long_run_warnings(config),
    ):
        say(f"warning: {warning}")
    return learning_run.run_in_folder("train", config, composed)["eval/heldout/avg"]


def ungraded_prompts_error(problems: Iterable[Problem], config: TrainConfig) -> str | None:
    """If `problems` contain prompts without a checkable answer that the run could not learn from: why, and the fix."""
    general = [problem.id for problem in problems if problem.grader == Grader.model]
    if not general or config.algorithm.advantage.reward == AdvantageReward.none:
        return None
    seen = f"{len(general)} problems, such as {general[0]}, have the grader `model`: no rule can grade them"
    if not any(isinstance(term, ModelTerm | FunctionTerm) for term in typed_terms(config.reward.terms).values()):
        return (
            f"{seen}, and reward.terms has neither a model nor your own function. Give a reward model, as in "
            "reward=r1_general reward.terms.model.path=<run of r1zero reward-model>/model, or choose other data."
        )
    if config.algorithm.advantage.reward == AdvantageReward.accuracy:
        fix = "algorithm.advantage.reward=total"
    elif config.algorithm.select == Select.correct:
        fix = "algorithm.select=all"
    else:
        return None
    return f"{seen}, and this algorithm learns only from right answers. Set {fix}, or choose other data."
