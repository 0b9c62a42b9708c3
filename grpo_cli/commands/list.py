"""`r1zero list`: the choices of the config groups."""

import argparse
import sys
from pathlib import Path

from rich.table import Table
from rich.text import Text

from grpo_cli.config.compose import conf_dir
from grpo_cli.config.groups import HIDDEN, config_groups, description
from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean
from grpo_cli.printing import printable
from grpo_cli.screen import Screen

EXAMPLES = """\
examples:
  r1zero list
  r1zero list algorithm
  r1zero list algorithm --config-dir my_conf     your own files, too
  r1zero copy algorithm/dr_grpo my_conf          start a file of your own
"""


def main(argv: list[str]) -> None:
    """Print each choice with what it is. Raises ConfigError for an unknown group."""
    parser = argparse.ArgumentParser(
        prog="r1zero list",
        description="List the choices of a config group, or of all groups, with one line about each.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("group", nargs="?", help="such as algorithm, model or data; all groups if not given")
    parser.add_argument(
        "-cd", "--config-dir", type=Path, action="append", default=[], help="a folder of your own files"
    )
    options = parser.parse_args(argv)
    groups = config_groups([conf_dir(), *options.config_dir])
    shown = [options.group] if options.group else sorted(groups.keys() - HIDDEN)
    if shown[0] not in groups:
        raise ConfigError(
            f"There is no group {shown[0]!r}.{did_you_mean(shown[0], groups)} "
            f"The groups are {', '.join(sorted(groups.keys() - HIDDEN))}."
        )
    table = Table.grid(padding=(0, 2))
    for group in shown:
        for choice, file in groups[group].items():
            table.add_row(f"{group}={choice}", Text(printable(description(file))))
    Screen(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
