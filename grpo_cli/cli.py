"""`r1zero <command> ...`: one console script, one thin module per command.

A command that composes a run is a Hydra app over conf/; the others parse their arguments with argparse. Commands
are imported late, so that `--help`, `--cfg job` and shell completion are fast.
"""

import difflib
import importlib
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from grpo_cli import __version__
from grpo_cli.config.commands import COMMANDS, expand_shorthands
from grpo_cli.errors import R1ZeroError
from grpo_cli.paths import shorten_temporary_folder
from grpo_cli.printing import say

USAGE = f"""usage: r1zero <command> [arguments]

{chr(10).join(f"  {name:<14}{command.summary}" for name, command in COMMANDS.items())}

  r1zero <command> --help      settings or arguments, with examples
  r1zero train --cfg job       show the composed configuration; run nothing
  r1zero train -m key=1,2      a sweep: one job for each combination
  r1zero --version
"""


def main() -> None:
    """The console script."""
    logging.raiseExceptions = False  # otherwise a log line to a closed terminal prints a traceback
    try:
        _run(sys.argv[1:])
    except KeyboardInterrupt:
        _fail("Stopped.", 128 + signal.SIGINT)
    except BrokenPipeError:
        if not _stdout_reader_is_gone():
            raise
        raise SystemExit(128 + signal.SIGPIPE) from None  # as in `r1zero ... | head`
    finally:
        _flush()


def _run(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] in ("-V", "--version"):
        print(f"r1zero {__version__}")
        return
    if arguments[0] in ("-sc", "--shell-completion"):
        _complete(arguments)
        return
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean `r1zero {near[0]}`?" if near else ""
        _fail(f"There is no command {name!r}.{hint}\n\n{USAGE}", status=2)
    shorten_temporary_folder()
    try:
        _dispatch(name, rest)
    except R1ZeroError as error:
        _fail(str(error), error.exit_status)


def _dispatch(name: str, arguments: list[str]) -> None:
    module = f"grpo_cli.commands.{name.replace('-', '_')}"
    if name == "eval" and "--compare" in arguments:  # takes no settings
        importlib.import_module("grpo_cli.commands.compare").main(arguments)
    elif COMMANDS[name].settings:
        _run_hydra_app(name, module, arguments)
    else:
        importlib.import_module(module).main(arguments)


def _run_hydra_app(name: str, module: str, arguments: list[str]) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from grpo_cli.commands import hydra_job
    from grpo_cli.config import compose, reference

    def task(composed):
        if HydraConfig.get().job.chdir:
            _fail(f"hydra.job.chdir=true: {compose.NO_CHDIR}")
        run = importlib.import_module(module).run
        if hydra_job.in_sweep():
            return hydra_job.run_in_sweep(run, composed)
        try:
            return run(composed)
        except R1ZeroError as error:
            _fail(str(error), error.exit_status)

    config_name = COMMANDS[name].conf or name
    compose.register_schemas()
    reference.register_help()
    arguments = expand_shorthands(config_name, arguments)
    if not COMMANDS[name].sweeps and {"-m", "--multirun"} & set(arguments):
        _fail(f"`r1zero {name}` is for one run at a time. Leave out -m, and give one value for each setting.", status=2)
    compose.check_exported(arguments)
    compose.check_overrides(config_name, arguments)
    task.__name__ = task.__qualname__ = name  # Hydra's name for the job
    sys.argv = [f"{sys.argv[0]} {name}", *compose.allow_new_entries(config_name, arguments)]
    app = hydra.main(version_base="1.3", config_path=str(compose.conf_dir()), config_name=config_name)(task)
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints and exits instead of raising
    try:
        app()
    except (HydraException, OmegaConfBaseException, OverflowError) as error:  # OverflowError: an int too large
        if wants_traceback:
            raise
        _fail(compose.explain_hydra_error(error))
    except AssertionError as error:
        explanation = compose.explain_hydra_error(error)
        if explanation == str(error):
            raise
        _fail(explanation)
    finally:
        num_unfinished = _report_sweep(hydra_job.Sweep.folder)
    if num_unfinished:  # for sweepers that continue after a failed job
        raise SystemExit(1)


def _report_sweep(folder: Path | None) -> int:
    """Report this process' sweep, if it started one. Returns the number of jobs that did not finish."""
    return importlib.import_module("grpo_cli.commands.sweep_report").report_at_end(folder) if folder else 0


def _complete(arguments: Sequence[str]) -> None:
    """Complete a command's name or its settings. Hydra's shell code runs `r1zero -sc query=SHELL`, with the typed line
    in COMP_LINE.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if not any(argument.startswith("query=") for argument in arguments):
        _run_hydra_app("train", "grpo_cli.commands.train", list(arguments))  # prints the shell code to install
    elif len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        print("\n".join(name for name in COMMANDS if name.startswith("".join(words[1:2]))))
    elif words[1] in COMMANDS and COMMANDS[words[1]].settings:
        os.environ["COMP_LINE"] = line.replace(f" {words[1]}", "", 1)
        if "COMP_POINT" in os.environ:
            os.environ["COMP_POINT"] = str(int(os.environ["COMP_POINT"]) - len(words[1]) - 1)
        _dispatch(words[1], list(arguments))


def _stdout_reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush() -> None:
    """Flush stdout. If nobody reads it any more, drop the rest; otherwise Python would print an error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int = 1) -> None:
    with suppress(OSError):  # a terminal that was closed
        say(f"r1zero: {message}")
    raise SystemExit(status)


if __name__ == "__main__":
    main()
