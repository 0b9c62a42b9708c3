"""`r1zero eval --compare`: compare two evaluations, problem by problem."""

import argparse
import sys
from pathlib import Path

from grpo_cli.evaluation.comparison import compare, comparison_table
from grpo_cli.screen import Screen


def main(argv: list[str]) -> None:
    """Print one row for each benchmark that both runs have. Raises DataError if they have none in common."""
    parser = argparse.ArgumentParser(prog="r1zero eval", description=__doc__)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), required=True, help="two run folders")
    a, b = parser.parse_args(argv).compare
    console = Screen(width=None if sys.stdout.isatty() else 140)
    console.print(comparison_table(compare(a, b), a, b))
