"""The loop of learning from given examples: batches in a seeded order, evaluation, checkpoints, a log."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from grpo_cli import stop
from grpo_cli.analysis.report import evaluated_rows, write_result
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.metrics.clock import Clock
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import peak_memory_gib, performance
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.training.checkpoint import Checkpoints, Learner
from grpo_cli.training.checkpoint_files import whole_checkpoints
from grpo_cli.training.export import export
from grpo_cli.training.loop import is_asked_to_stop, merged, open_log, say, stopped

Example = TypeVar("Example")


def num_steps(epochs: float, num_examples: int, batch_size: int) -> int:
    """Optimizer steps; the last batch of the last epoch is filled up from the beginning of another."""
    return max(1, math.ceil(epochs * num_examples / batch_size))


def short_enough(
    examples: Sequence[Example], length: Callable[[Example], int], limit: int, name: str, console: Console
) -> list[Example]:
    """Those of at most `limit` tokens; the others are counted aloud. Raises DataError where nothing is left."""
    kept = [example for example in examples if length(example) <= limit]
    if len(kept) < len(examples):
        left_out = len(examples) - len(kept)
        say(console, f"{left_out} of {len(examples)} {name} are longer than {limit} tokens, and left out.")
    if not kept:
        raise DataError(
            f"All {len(examples)} {name} are longer than {limit} tokens: the shortest has "
            f"{min(map(length, examples))}. Raise data.max_tokens, or use a model that reads more."
        )
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
    """Take `steps` steps of `config.batch_size` examples, of which each rank is given its share, then export the model.

    `update` takes one optimizer step, `evaluate` gives `eval/...` metrics; both are called on all ranks. Rank 0 writes
    metrics and results. Raises Stopped where it was asked to stop, once all is saved.
    """
    run_dir = Path(config.run.dir)
    sampler = EpochSampler(examples, config.seed)
    checkpoints = Checkpoints(config, command, partial(say, console))
    start_step = checkpoints.load_latest(learner, sampler)
    if start_step > steps:
        raise ConfigError(
            f"The run in {run_dir} has taken {start_step}, and epochs={config.epochs:g} is {steps}. Raise epochs, "
            "or move its later checkpoints away to go on from an earlier one."
        )
    if rank() == 0 and start_step < steps:
        (run_dir / "result.json").unlink(missing_ok=True)  # of a run that is made longer: model/ is not its end now
    is_stopped = False
    with checkpoints.advice(), ExitStack() as stack:
        log = open_log(stack, config, steps, start_step, console)
        if start_step == 0:
            log(0, evaluate())
        stop.listen()
        for step in range(start_step + 1, steps + 1):
            clock = Clock()
            with clock.phase("update"):
                batch = sampler.next(config.batch_size)
                tally = update(batch[rank() :: world_size()])
            tally.max("perf/peak_memory_gib", peak_memory_gib())
            is_last = step == steps
            evaluation = {}
            if is_last or (config.eval.every_steps and step % config.eval.every_steps == 0):
                with clock.phase("eval"):
                    evaluation = evaluate()
            metrics = performance(merged(tally) | evaluation | clock.times())
            metrics["epoch"] = step * config.batch_size / len(examples)
            log(step, metrics)
            is_stopped = is_asked_to_stop() and not is_last
            checkpoints.maybe_save(step, learner, sampler, metrics, must=is_last or is_stopped)
            if is_stopped:
                break
    gather(None)  # else the end of one rank would cut off what another still writes
    if is_stopped:
        raise stopped(run_dir, step)
    if rank() == 0:
        export(whole_checkpoints(run_dir)[0], run_dir / "model")
        _conclude(run_dir, steps, console)


def _conclude(run_dir: Path, last_step: int, console: Console) -> None:
    """Write what the launcher returns, and say what was reached."""
    rows = evaluated_rows(run_dir, last_step)
    before, after = rows[0], rows[-1]
    write_result(run_dir, after)
    for name in after:
        if name in before and name.startswith("eval/") and name.endswith(("/loss", "/avg", "_accuracy")):
            say(console, f"{name.removeprefix('eval/')}: {before[name]:.3f} before, {after[name]:.3f} after")
    say(console, f"The run is in {run_dir}: model/, metrics.jsonl")
