"""What every loop over steps needs: its log, its words, and how it ends."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from typing import Any

from rich.console import Console

from grpo_cli import stop
from grpo_cli.errors import Stopped
from grpo_cli.metrics.loggers import RunLogger
from grpo_cli.metrics.metrics import Tally
from grpo_cli.ranks import gather, rank
from grpo_cli.runs.frozen import public_settings


def say(console: Console, text: str) -> None:
    """A text as it is, on lines as long as they are."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def open_log(
    stack: ExitStack, config: Any, steps: int, start_step: int, console: Console, mismatch_limit: float | None = None
) -> Callable[..., None]:
    """What rank 0 calls once a step; elsewhere it does nothing."""
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
    return stack.enter_context(logger).log


def merged(tally: Tally) -> dict[str, float]:
    """The metrics of all ranks together; called on all."""
    return reduce(Tally.merge, gather(tally)).compute()


def is_asked_to_stop() -> bool:
    """Whether any rank is; called on all."""
    return any(gather(stop.is_requested()))


def stopped(run_dir: Path, step: int) -> Stopped:
    return Stopped(
        f"Stopped as asked after step {step}, which is saved. The same command with resume=auto goes on: {run_dir}"
    )
