"""`r1zero <command> ...`: one console script, one thin module per command.

A command that composes a run is a Hydra app over conf/; the others parse their arguments with argparse. Commands
are imported late, so that `--help`, `--cfg job` and shell completion are fast.
"""

import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from grpo_cli import __version__, stop
from grpo_cli.errors import ConfigError, R1ZeroError
from grpo_cli.printing import say

if TYPE_CHECKING:
    from pathlib import Path

# Nothing slower is imported above: until main() has set its handler, Ctrl-C prints a traceback.
USAGE = """usage: r1zero <command> [arguments]

{commands}

  r1zero <command> --help      settings or arguments, with examples
  r1zero train --cfg job       show the composed configuration; run nothing
  r1zero train -m key=1,2      a sweep: one job for each combination
  r1zero --version
"""
FRESH_LINE = "\r\x1b[K\x1b[?25h"  # removes the spinner of a rank that was stopped, and shows the cursor again
INTERRUPTED = 128 + signal.SIGINT
RUNS_NOTHING = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info"}


def main() -> None:
    """The console script."""
    for number in stop.not_ignored((signal.SIGINT,)):
        signal.signal(number, _on_interrupt)
    import logging

    logging.raiseExceptions = False  # otherwise a log line to a closed terminal prints a traceback
    try:
        _run(sys.argv[1:])
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one could interrupt the exit and print a traceback
        _fail("Stopped.", INTERRUPTED)
    except BrokenPipeError:
        if not _stdout_reader_is_gone():
            raise
        raise SystemExit(128 + signal.SIGPIPE) from None  # as in `r1zero ... | head`
    finally:
        _flush()


def _on_interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but during an import, which could print or swallow it, end at once."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with suppress(OSError):
                say("r1zero: Stopped.")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _run(arguments: Sequence[str]) -> None:
    if "--version" in arguments or arguments[:1] == ["-V"]:
        print(f"r1zero {__version__}")
        return
    import difflib

    from grpo_cli.config.commands import COMMANDS
    from grpo_cli.paths import shorten_temporary_folder

    usage = USAGE.format(commands="\n".join(f"  {name:<14}{command.summary}" for name, command in COMMANDS.items()))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, end="")
        return
    name, *rest = arguments
    if {"-sc", "--shell-completion"} & set(arguments):
        name, rest = "shell-completion", list(arguments)
    elif name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean `r1zero {near[0]}`?" if near else ""
        _fail(f"There is no command {name!r}.{hint}\n\n{usage}", status=2)
    shorten_temporary_folder()
    try:
        _dispatch(name, rest)
    except R1ZeroError as error:
        _fail(str(error), error.exit_status)


def _dispatch(name: str, arguments: list[str]) -> None:
    from grpo_cli.config.commands import COMMANDS

    module = f"grpo_cli.commands.{name.replace('-', '_')}"
    if name == "eval" and "--compare" in arguments:  # takes no settings
        importlib.import_module("grpo_cli.commands.compare").main(arguments)
    elif name in COMMANDS and COMMANDS[name].settings:
        _run_hydra_app(name, module, arguments)
    else:
        importlib.import_module(module).main(arguments)


def _run_hydra_app(name: str, module: str, arguments: list[str]) -> None:
    if not RUNS_NOTHING & {word.partition("=")[0] for word in arguments}:
        print("checking settings and data", flush=True)  # before the imports, which take a second
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from grpo_cli.commands import hydra_job
    from grpo_cli.config import compose, overrides, reference
    from grpo_cli.config.commands import COMMANDS
    from grpo_cli.config.grammar import overrides_first
    from grpo_cli.config.groups import extra_conf_dirs
    from grpo_cli.config.hydra_errors import explain_hydra_error

    def run(composed):
        try:
            return importlib.import_module(module).run(composed)
        except OmegaConfBaseException as error:
            if wants_traceback:
                raise
            raise ConfigError(explain_hydra_error(error, settings)) from None

    def task(composed):
        if HydraConfig.get().job.chdir:
            _fail(f"hydra.job.chdir=true: {overrides.NO_CHDIR}")
        if hydra_job.in_sweep():
            return hydra_job.run_in_sweep(run, composed)
        try:
            return run(composed)
        except R1ZeroError as error:
            _fail(str(error), error.exit_status)

    settings = COMMANDS[name].conf or name
    compose.register_schemas()
    reference.register_help()
    arguments = overrides_first(overrides.expand_shorthands(settings, arguments))
    if not COMMANDS[name].sweeps and {"-m", "--multirun"} & set(arguments):
        _fail(f"`r1zero {name}` is for one run at a time. Leave out -m, and give one value for each setting.", status=2)
    overrides.check_exported(arguments)
    overrides.check_flags(settings, arguments)
    overrides.check_overrides(settings, arguments)
    task.__name__ = task.__qualname__ = name  # Hydra's name for the job
    sys.argv = [f"{sys.argv[0]} {name}", *overrides.allow_new_entries(settings, arguments)]
    app = hydra.main(version_base="1.3", config_path=str(compose.conf_dir()), config_name=name)(task)
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints and exits instead of raising
    try:
        app()
    except (HydraException, OmegaConfBaseException, OverflowError) as error:  # OverflowError: an int too large
        if wants_traceback:
            raise
        _fail(explain_hydra_error(error, settings, list(extra_conf_dirs(arguments))))
    except YAMLError as error:
        _fail(f"A config file is not valid YAML: {error}")
    except (AssertionError, AttributeError) as error:  # OmegaConf raises them for a setting inside None
        explanation = explain_hydra_error(error, settings)
        if explanation == str(error):
            raise
        _fail(explanation)
    finally:
        num_unfinished = _report_sweep(hydra_job.Sweep.folder)
    if num_unfinished:  # for sweepers that continue after a failed job
        raise SystemExit(1)


def _report_sweep(folder: "Path | None") -> int:
    """Report this process' sweep, if it started one. Returns the number of jobs that did not finish."""
    return importlib.import_module("grpo_cli.commands.sweep_report").report_at_end(folder) if folder else 0


def _stdout_reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush() -> None:
    """Flush stdout and stderr. If nobody reads one of them any more, drop the rest: Python would fail at exit, with an
    error message or the status 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str, status: int = 1) -> None:
    with suppress(OSError):  # a terminal that was closed
        if sys.stderr.isatty():
            sys.stderr.write(FRESH_LINE)
        say(f"r1zero: {message}")
    raise SystemExit(status)


if __name__ == "__main__":
    main()
