"""`r1zero pipeline`: stages of training and sampling one after the other, each model of which is evaluated."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

from grpo_cli.errors import CheckpointError, ConfigError, SetupError
from grpo_cli.pipeline.check import check_steps
from grpo_cli.pipeline.plan import (
    Pipeline,
    pipeline_files,
    read_pipeline,
    steps_of,
    with_settings,
)
from grpo_cli.pipeline.report import curves, plot, report_markdown, report_rows, report_table
from grpo_cli.pipeline.running import DONE, R1ZERO, WAITING, Record, command_line, read_manifest, records_of, run_steps
from grpo_cli.runs.lock import LAUNCHER_LOCK, locked
from grpo_cli.screen import Screen

FROZEN = "pipeline.yaml"  # in the pipeline's folder: the file, with what the command line set
OWN = ("pipeline", "run.dir", "resume")  # settings of the command itself
DESCRIPTION = """\
Run the stages of a pipeline one after the other: each is an r1zero command, and takes models and data from those
before it. The base model and each model that is trained are evaluated in the same way.

  pipeline=NAME             one of those below, or a YAML file of your own (docs/pipelines.md)
  run.dir=FOLDER            where all of it is kept; runs/<date>_<time>_<name> unless set
  resume=FOLDER             go on with the pipeline in a folder, with the settings that it has
  NAME=VALUE                a variable of the pipeline
  STAGE.KEY=VALUE           a setting of one stage, as in rl.optimizer.lr=1e-5; evaluate.KEY=VALUE for evaluations
"""
EXAMPLES = """\
examples:
  r1zero pipeline pipeline=r1 --dry-run
  r1zero pipeline pipeline=r1 model=tiny_mixed rl.steps=50 run.dir=runs/r1
  r1zero pipeline resume=runs/r1
  r1zero pipeline resume=runs/r1 --report
  r1zero pipeline pipeline=star rounds=5
"""


def main(argv: list[str], runner: Sequence[str] = R1ZERO) -> None:
    """Run a pipeline, or show what it would run or has done; without arguments list those there are.

    Raises ConfigError with every fault before anything starts, StepEnded where a stage fails or is stopped.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero pipeline",
        description=DESCRIPTION,
        epilog=f"pipelines:\n{_listed()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="show each step and whether it is done; run nothing")
    parser.add_argument("--report", action="store_true", help="report what is done so far; run nothing")
    arguments = parser.parse_intermixed_args(argv)
    if not argv:
        print(f"{_listed()}\n\nRun one with `r1zero pipeline pipeline=<name>`; --dry-run shows what it would do.")
        return
    own, settings = _parted(arguments.settings)
    folder = Path(own.get("resume") or own.get("run.dir") or _new_folder(own["pipeline"])).expanduser()
    folder = folder.absolute()  # the stages' own records hold it
    try:
        if arguments.report:
            _report(read_manifest(folder), folder)
            return
        pipeline = with_settings(_read(own, folder), settings)
        steps = steps_of(pipeline)
        records = records_of(steps, folder)
        check_steps(steps, on_this_machine=not arguments.dry_run)
        if arguments.dry_run:
            _show(records)
            return
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LAUNCHER_LOCK, wait_s=0):
            records = records_of(steps, folder)  # once no other start can change them
            _freeze(pipeline, folder)
            run_steps(records, folder, runner)
            _report(records, folder)
    except OSError as error:
        raise SetupError(
            f"{error.filename or folder}: {error.strerror}. Mend it, or set another run.dir; what is done stays done."
        ) from error


def _parted(settings: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings of the command itself by key, and those of the pipeline."""
    own = {key: value for key, is_set, value in (it.partition("=") for it in settings) if is_set and key in OWN}
    rest = [setting for setting in settings if setting.partition("=")[0] not in OWN]
    if "resume" in own and own.keys() & {"pipeline", "run.dir"}:
        raise ConfigError(
            f"resume={own['resume']} brings its pipeline and its folder. Leave pipeline= and run.dir= out."
        )
    if not own:
        near = difflib.get_close_matches(rest[0].partition("=")[2] or rest[0], pipeline_files(), n=1) if rest else []
        raise ConfigError(f"Which pipeline? Give pipeline={near[0] if near else '<name>'}, or resume=<folder>.")
    return own, rest


def _read(own: dict[str, str], folder: Path) -> Pipeline:
    if "pipeline" in own:
        return read_pipeline(own["pipeline"])
    if not (folder / FROZEN).is_file():
        raise CheckpointError(
            f"{folder} holds no pipeline (no {FROZEN}). Give the folder of one, or start one with pipeline=<name>."
        )
    return read_pipeline(str(folder / FROZEN))


def _new_folder(pipeline: str) -> str:
    return f"runs/{datetime.now():%Y-%m-%d_%H%M%S}_{Path(pipeline).stem}"


def _freeze(pipeline: Pipeline, folder: Path) -> None:
    written = folder / f"{FROZEN}.tmp"
    written.write_text(yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True), encoding="utf-8")
    written.replace(folder / FROZEN)


def _listed() -> str:
    """Each pipeline with the first line of its file, which is a comment."""
    first = {
        name: file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ") for name, file in pipeline_files().items()
    }
    return "\n".join(f"  {name:<10}{summary}" for name, summary in first.items())


def _show(records: Sequence[Record]) -> None:
    for number, record in enumerate(records, 1):
        print(f"[{number}/{len(records)}] {record['name']}: {record['status']}\n  {command_line(record)}")
        for path in record["takes"]:
            print(f"  takes {path}")


def _report(records: Sequence[Record], folder: Path) -> None:
    if not records:
        raise CheckpointError(f"{folder} holds no pipeline that was started. Give resume=<its folder>.")
    rows = report_rows(records, folder)
    console = Screen(width=None if sys.stdout.isatty() else 160)
    console.print(report_table(rows))
    for record in records:
        if record["status"] not in (DONE, WAITING):
            console.print(f"{record['name']}: {record['status']}", markup=False, highlight=False)
    (folder / "pipeline.md").write_text(report_markdown(rows, folder.name), encoding="utf-8")
    files = ["pipeline.md", "pipeline.json"]
    if drawn := curves(records, folder):
        plot(drawn, folder / "pipeline.png")
        files.insert(1, "pipeline.png")
    console.print(f"{folder}: {', '.join(files)}", markup=False, highlight=False, soft_wrap=True)
