"""What every training loop shares: its log, the end of each step, and the end of the run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial, reduce
from pathlib import Path
from typing import Any

from rich.console import Console

from grpo_cli import stop
from grpo_cli.analysis.report import evaluated_rows, plot_learning_curve, write_result
from grpo_cli.config.grammar import resuming
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import Stopped
from grpo_cli.evaluation.live import Evaluated
from grpo_cli.metrics.clock import Clock
from grpo_cli.metrics.loggers import RunLogger
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import Peak, performance
from grpo_cli.progress import progress, stage
from grpo_cli.ranks import gather, rank
from grpo_cli.report.page import page_refresher, refresh_page
from grpo_cli.runs.frozen import public_settings
from grpo_cli.runs.listing import State
from grpo_cli.runs.resume import whole_checkpoints
from grpo_cli.runs.rollouts import KeptGroup, Split, kept_group
from grpo_cli.training.checkpoint import Checkpoints, Learner
from grpo_cli.training.export import export


def say(console: Console, text: str) -> None:
    """Print the text unchanged: no markup, no colours, no line breaks added."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def open_log(
    stack: ExitStack, config: Any, steps: int, start_step: int, console: Console, mismatch_limit: float | None = None
) -> Callable[..., None]:
    """The function that logs a step on rank 0, and keeps the run's page up to date if the step has an evaluation; on
    other ranks it does nothing. The log is closed with `stack`.
    """
    if rank() != 0:
        return lambda *_: None
    run_dir = Path(config.run.dir)
    logger = RunLogger(
        config.logger,
        run_dir,
        run_name=run_dir.name,
        steps=steps,
        settings=public_settings(config),
        start_step=start_step,
        mismatch_limit=mismatch_limit,
        console=console,
    )
    stack.enter_context(logger)
    refresh = page_refresher(run_dir, partial(say, console))

    def log(step: int, metrics: Mapping[str, float], *kept: Any) -> None:
        logger.log(step, metrics, *kept)
        if any(name.startswith("eval/") for name in metrics):
            refresh()

    return log


def of_all_ranks(tally: Tally) -> Tally:
    """The tallies of all ranks together; called on all ranks."""
    return reduce(Tally.merge, gather(tally))


def finish_step(
    step: int,
    steps: int,
    tally: Tally,
    clock: Clock,
    *,
    eval_every: int,
    evaluate: Callable[[], Evaluated],
    log: Callable[..., None],
    checkpoints: Checkpoints,
    learner: Learner,
    sampler: EpochSampler,
    console: Console,
    peak: Peak | None = None,
    groups: Sequence[KeptGroup] = (),
    check: Callable[[Mapping[str, float]], None] | None = None,
) -> bool:
    """Evaluate if due, log the step's metrics, check them, and save a checkpoint if due. Called on all ranks.

    Returns whether the run must stop after this step, because it was asked to. `groups` are the step's kept groups.
    `check` raises an error if the metrics show a fault; nothing is saved then.
    """
    is_last = step == steps
    evaluation = Evaluated({})
    if is_last or (eval_every and step % eval_every == 0):
        with clock.phase("eval"):
            evaluation = evaluate()
    merged = of_all_ranks(tally)
    times = clock.times() | checkpoints.times()
    metrics = performance({**merged.compute(), **sampler.metrics(), **evaluation.metrics, **times}, peak)
    log(step, metrics, [*groups, *heldout_groups(step, evaluation)], merged.values())
    if check:
        check(metrics)
    must_stop = any(gather(stop.is_requested())) and not is_last
    with progress(console, f"step {step}: saving"):
        checkpoints.maybe_save(step, learner, sampler, metrics, must=is_last or must_stop)
    return must_stop


def heldout_groups(step: int, evaluation: Evaluated) -> list[KeptGroup]:
    """The groups of an evaluation as they are kept."""
    return [kept_group(step, Split.heldout, group) for group in evaluation.groups]


def finish_run(run_dir: Path, stopped_after: int | None, console: Console) -> None:
    """Export the model of the last checkpoint to `model/`. Called on all ranks.

    Raises Stopped if the run was asked to stop, after the step `stopped_after`.
    """
    gather(None)  # otherwise the end of one rank would interrupt what another still writes
    if stopped_after is not None:
        # The launcher adds how to resume.
        raise Stopped(f"Stopped on request after step {stopped_after}, which is saved.")
    if rank() == 0:
        with stage(console, "exporting the model"):
            export(whole_checkpoints(run_dir)[0], run_dir / "model")


def conclude(run_dir: Path, last_step: int, console: Console) -> None:
    """Write a run's result.json, the page and the learning curve; print the accuracies and how to train longer."""
    rows = evaluated_rows(run_dir, last_step)
    before, after = rows[0], rows[-1]
    refresh_page(run_dir, State.finished, partial(say, console))
    plot_learning_curve(run_dir / "metrics.jsonl", run_dir / "learning_curve.png")
    write_result(run_dir, after)  # last: a run with a result is finished
    lines = []
    for name, label in (("avg", "at temperature 1"), ("greedy", "greedy")):
        key = f"eval/heldout/{name}"
        lines.append(f"held-out accuracy {label}: {before[key]:.3f} before, {after[key]:.3f} after")
    lines.append(f"The run is in {run_dir}: model/, metrics.jsonl, report.html")
    lines.append(f"To train longer: r1zero train {resuming(run_dir)} steps={2 * int(after['step'])}")
    say(console, "\n".join(lines))
