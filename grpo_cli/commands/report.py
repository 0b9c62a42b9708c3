"""`r1zero report`: the page of a run, or the same facts as JSON."""

import argparse
from pathlib import Path

from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.jsonl import json_text
from grpo_cli.report.page import PAGE, ROOM, collect, write_page
from grpo_cli.runs.listing import list_runs

DESCRIPTION = """\
Write the page of a run: is it learning, and what does it say? Its curves, its groups of responses and their rewards
are in one HTML file that needs no server and no network.

A training run writes its page at every evaluation and at its end. Use this command to compare several runs, to make a
larger page, or to read the facts with a program.
"""
EXAMPLES = """\
examples:
  r1zero report runs/first
  r1zero report runs/first runs/second --out comparison.html
  r1zero report runs/r1                    # the stages of a pipeline
  r1zero report runs/first --json
"""


def main(argv: list[str]) -> None:
    """Write the page and print where it is, or print the facts.

    Raises ConfigError if a folder holds no run, DataError if its files are damaged, SetupError if the page cannot be
    written.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder, or the folder of a pipeline; several runs are compared",
    )
    parser.add_argument("--out", type=Path, help=f"the file to write (default: {PAGE} in the first run's folder)")
    parser.add_argument("--mb", type=float, default=ROOM / 1e6, help="size of the page in MB (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON document instead")
    options = parser.parse_args(argv)
    folders = [run for folder in options.runs for run in _runs_in(folder)]
    if options.mb < 1:
        raise ConfigError(f"--mb={options.mb:g} is too small for a page. Give at least 1.")
    room = int(options.mb * 1e6)
    if options.json:
        print(json_text(collect(folders, room=room)[0]))
        return
    file = options.out or options.runs[0] / PAGE
    try:
        facts = write_page(folders, file, room=room)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}. Fix that, or set --out.") from error
    for run in facts["runs"]:
        print(f"{run['run']['name']}: {run['verdict']['headline']}")
    print(f"The page is {file}. Open it in a browser.")


def _runs_in(folder: Path) -> list[Path]:
    """The folder, if it holds a run; otherwise the training runs in it, such as a pipeline's stages, oldest first."""
    if (folder / "config.yaml").is_file():
        return [folder]
    found = [run.folder for run in list_runs(folder)[::-1] if run.step] if folder.is_dir() else []
    if not found:
        raise ConfigError(f"{folder} holds no run (no config.yaml). Give the folder of a run, as in runs/...")
    return found
