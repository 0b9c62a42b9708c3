"""`r1zero pipeline`: run several commands one after the other, and evaluate each model that they train."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

from grpo_cli.errors import CheckpointError, ConfigError, SetupError
from grpo_cli.files import write_whole
from grpo_cli.pipeline.check import check_stages
from grpo_cli.pipeline.report import report_table
from grpo_cli.pipeline.run import R1ZERO, Progress, check_progress, read_progress, run_stages
from grpo_cli.pipeline.stages import pipeline_files, read_pipeline, stages_of, with_settings
from grpo_cli.runs.lock import LAUNCHER_LOCK, locked
from grpo_cli.screen import Screen

FROZEN = "pipeline.yaml"  # in the pipeline's folder: its file, with the command line's settings
STATUS = {None: "not started", False: "not done", True: "done"}
DESCRIPTION = """\
Run the stages of a pipeline one after the other. Each is an r1zero command that uses the models and data of earlier
stages. The base model and each trained model are evaluated in the same way.

  pipeline=NAME             one of those below, or a YAML file of your own (docs/pipelines.md)
  run.dir=FOLDER            where everything is saved; runs/<date>_<time>_<name> unless set
  resume=FOLDER             resume the pipeline in this folder, with its settings
  KEY=VALUE                 a key of the pipeline's file, as in cluster=gpu_1
  STAGE.KEY=VALUE           a setting of one stage, as in rl.optimizer.lr=1e-5; evaluate.KEY=VALUE for all evaluations
"""
EXAMPLES = """\
examples:
  r1zero pipeline pipeline=r1 rl.steps=50 run.dir=runs/r1
  r1zero pipeline resume=runs/r1
"""


def main(argv: list[str], runner: Sequence[str] = R1ZERO) -> None:
    """Run a pipeline, or show what it would run or has done; without arguments list the pipelines.

    Raises ConfigError with every fault before anything starts, TrainingError if a stage fails, Stopped after a signal.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero pipeline",
        description=DESCRIPTION,
        epilog=f"pipelines:\n{_list()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="show each stage and whether it is done; run nothing")
    parser.add_argument("--report", action="store_true", help="show what is done so far; run nothing")
    arguments = parser.parse_intermixed_args(argv)
    if not argv:
        print(f"{_list()}\n\nRun one with `r1zero pipeline pipeline=<name>`; --dry-run shows what it would run.")
        return
    name, folder, settings = _parse(arguments.settings)
    try:
        if arguments.report:
            _print_report(read_progress(folder), folder)
            return
        pipeline = with_settings(read_pipeline(name), settings)
        stages = stages_of(pipeline, folder)
        check_stages(stages, folder, on_this_machine=not arguments.dry_run)
        progress = read_progress(folder)
        check_progress(stages, progress, folder)
        if arguments.dry_run:
            for stage in stages:
                print(f"{stage.name}: {STATUS[progress.get(stage.name, {}).get('done')]}\n  {stage.line}")
            return
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LAUNCHER_LOCK, wait_s=0):
            progress = read_progress(folder)  # again, now that no other start can change it
            check_progress(stages, progress, folder)
            write_whole(folder / FROZEN, yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True))
            run_stages(stages, progress, folder, f"r1zero pipeline resume={shlex.quote(str(folder))}", runner)
            _print_report(progress, folder)
    except OSError as error:
        raise SetupError(
            f"{error.filename or folder}: {error.strerror}. Fix it, or set another run.dir; what is done stays done."
        ) from error


def _parse(settings: Sequence[str]) -> tuple[str, Path, list[str]]:
    """The pipeline's name or file, its folder, and the settings for its keys and stages."""
    keys = ("pipeline=", "run.dir=", "resume=")
    options = dict(setting.split("=", 1) for setting in settings if setting.startswith(keys))
    rest = [setting for setting in settings if setting.partition("=")[0] not in options]
    if "resume" in options and len(options) > 1:
        raise ConfigError(
            f"resume={options['resume']} already names a pipeline and its folder. Leave out pipeline= and run.dir=."
        )
    if "resume" in options:
        folder = Path(options["resume"]).expanduser().absolute()
        if not (folder / FROZEN).is_file():
            raise CheckpointError(f"{folder} holds no pipeline (no {FROZEN}). Start one with pipeline=<name>.")
        return str(folder / FROZEN), folder, rest
    if "pipeline" not in options:
        raise ConfigError(f"Which pipeline? Set pipeline= to one of {', '.join(pipeline_files())}, or resume=<folder>.")
    name = options["pipeline"]
    folder = Path(options.get("run.dir", f"runs/{datetime.now():%Y-%m-%d_%H%M%S}_{Path(name).stem}"))
    return name, folder.expanduser().absolute(), rest  # absolute, since the stages' settings contain it


def _list() -> str:
    """One line for each pipeline: its name and the comment in the first line of its file."""
    files = {name: file.read_text(encoding="utf-8") for name, file in pipeline_files().items()}
    return "\n".join(f"  {name:<10}{text.splitlines()[0].lstrip('# ')}" for name, text in files.items())


def _print_report(progress: Progress, folder: Path) -> None:
    if not progress:
        raise CheckpointError(f"{folder} holds no pipeline that was started. Set resume=<its folder>.")
    Screen(width=None if sys.stdout.isatty() else 160).print(report_table(progress, folder))
    print(folder)
