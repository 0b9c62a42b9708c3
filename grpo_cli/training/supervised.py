"""The training loop for given examples: batches in a seeded order, evaluation, checkpoints, a log."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from grpo_cli import stop
from grpo_cli.analysis.report import evaluated_rows, write_result
from grpo_cli.data.lengths import no_example_fits
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import ConfigError
from grpo_cli.evaluation.live import Evaluated
from grpo_cli.metrics.clock import Clock
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import peak_memory_gib
from grpo_cli.progress import progress, stage
from grpo_cli.ranks import rank, world_size
from grpo_cli.report.page import refresh_page
from grpo_cli.runs.listing import State
from grpo_cli.training.checkpoint import Checkpoints, Learner
from grpo_cli.training.loop import finish_run, finish_step, open_log, say

Example = TypeVar("Example")


def num_steps(epochs: float, num_examples: int, batch_size: int) -> int:
    """The number of optimizer steps. The last batch is completed with the first examples of another epoch."""
    return max(1, math.ceil(epochs * num_examples / batch_size))


def short_enough(
    examples: Sequence[Example],
    length: Callable[[Example], int],
    name: str,
    max_tokens: int,
    context: int,
    console: Console,
) -> list[Example]:
    """The examples of at most `max_tokens` tokens that fit in the model's `context`.

    Reports how many are longer; raises DataError if none is left.
    """
    limit = min(max_tokens, context)
    kept = [example for example in examples if length(example) <= limit]
    if len(kept) < len(examples):
        left_out = len(examples) - len(kept)
        rule = f"data.max_tokens={limit}" if limit == max_tokens else f"the {limit} tokens that the model reads"
        say(console, f"{left_out} of {len(examples)} {name} are longer than {rule} and are left out.")
    if not kept:
        raise no_example_fits(len(examples), min(map(length, examples)), name, max_tokens, context)
    return kept


def fit(
    config: Any,
    command: str,
    learner: Learner,
    examples: Sequence[Example],
    steps: int,
    *,
    update: Callable[[Sequence[Example]], Tally],
    evaluate: Callable[[], Mapping[str, float]],
    console: Console,
) -> None:
    """Train for `steps` steps of `config.batch_size` examples, split between the ranks, then export the model.

    `update` takes one optimizer step on this rank's examples; `evaluate` returns `eval/...` metrics. Both are called on
    all ranks. Rank 0 writes metrics and results. Raises Stopped if the run was asked to stop, after saving.
    """
    run_dir = Path(config.run.dir)
    sampler = EpochSampler(examples, config.seed)
    checkpoints = Checkpoints(config, command, partial(say, console))
    start_step = checkpoints.load_latest(learner, sampler)
    if start_step > steps:
        raise ConfigError(
            f"The run in {run_dir} has already taken {start_step} steps, and epochs={config.epochs:g} is {steps}. "
            "Raise epochs, or move its later checkpoints away to resume from an earlier one."
        )
    if rank() == 0 and start_step < steps:
        (run_dir / "result.json").unlink(
            missing_ok=True
        )  # this run continues beyond its old end, so its old result no longer holds
    stopped_after = None
    with checkpoints.advice(), ExitStack() as stack:
        log = open_log(stack, config, steps, start_step, console)
        if start_step == 0:
            with stage(console, "evaluating before training"):
                before = evaluate()
            log(0, before)
        stop.listen()
        for step in range(start_step + 1, steps + 1):
            clock = Clock()
            with clock.phase("update"), progress(console, f"step {step}: updating"):
                batch = sampler.next(config.batch_size)
                tally = update(batch[rank() :: world_size()])
            tally.max("perf/peak_memory_gib", peak_memory_gib())
            must_stop = finish_step(
                step,
                steps,
                tally,
                clock,
                eval_every=config.eval.every_steps,
                evaluate=lambda: Evaluated(evaluate()),
                log=log,
                checkpoints=checkpoints,
                learner=learner,
                sampler=sampler,
                console=console,
            )
            if must_stop:
                stopped_after = step
                break
        finish_run(run_dir, stopped_after, console)
    if rank() == 0:
        _conclude(run_dir, steps, console)


def _conclude(run_dir: Path, last_step: int, console: Console) -> None:
    """Write result.json and the page, and print the metrics before and after."""
    rows = evaluated_rows(run_dir, last_step)
    before, after = rows[0], rows[-1]
    write_result(run_dir, after)
    refresh_page(run_dir, State.finished, partial(say, console))
    for name in after:
        if name in before and name.startswith("eval/") and name.endswith(("/loss", "/avg", "_accuracy")):
            say(console, f"{name.removeprefix('eval/')}: {before[name]:.3f} before, {after[name]:.3f} after")
    say(console, f"The run is in {run_dir}: model/, metrics.jsonl, report.html")
