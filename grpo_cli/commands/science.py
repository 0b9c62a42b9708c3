"""`r1zero science`: repeat claims of the field as experiments, and write the page of verdicts."""

import argparse
import re
import sys
from collections.abc import Sequence

from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text
from grpo_cli.pipeline.run import R1ZERO
from grpo_cli.report.page import PAGE
from grpo_cli.science.claims import FOLDER, Claim, claim_files, read_claim
from grpo_cli.science.experiment import check_claim, command_line, run_claim
from grpo_cli.science.report import claim_facts, science_page, science_table
from grpo_cli.screen import Screen

DESCRIPTION = f"""\
Repeat claims of the field. A claim is an experiment in a YAML file: command lines, seeds, a statistic, and what would
confirm or refute it (docs/science.md). This runs what is missing in {FOLDER}, and writes the page with all verdicts. If
it is stopped, the same command continues.

  seeds=confirm     the seeds for the verdict (the default)
  seeds=dev         the seeds on which the recipe was chosen; they never change a verdict
  seeds=0,1,2       these seeds
"""
EXAMPLES = """\
examples:
  r1zero science
  r1zero science three_curves seeds=dev
  r1zero science my_claim.yaml --report
"""


def main(argv: list[str], runner: Sequence[str] = R1ZERO) -> None:
    """Run the claims and print their table; the page is written even if a run fails.

    Raises ConfigError with every fault before anything starts, TrainingError if a run fails, Stopped after a signal.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero science",
        description=DESCRIPTION,
        epilog=f"claims:\n{_list()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "claims", nargs="*", metavar="CLAIM", help="a claim below or a YAML file; those of the default set unless given"
    )
    parser.add_argument("--report", action="store_true", help="write the page from what is done so far; run nothing")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON document; run nothing")
    arguments = parser.parse_intermixed_args(argv)
    named = [word for word in arguments.claims if "=" not in word]
    chosen = _seeds_setting([word for word in arguments.claims if "=" in word])
    runs_nothing = arguments.report or arguments.json
    claims = [claim for claim in map(read_claim, named or claim_files()) if named or runs_nothing or claim.by_default]
    if arguments.json:
        print(json_text([claim_facts(claim) for claim in claims]))
        return
    try:
        if not arguments.report:
            for claim in claims:
                check_claim(claim, seeds_of(claim, chosen))
        try:
            for claim in claims if not arguments.report else []:
                print(f"\n{claim.name}: {claim.claim}", flush=True)
                run_claim(claim, seeds_of(claim, chosen), command_line(named, chosen), runner)
        finally:
            _report(claims)
    except OSError as error:
        raise SetupError(
            f"{error.filename or FOLDER}: {error.strerror}. Fix it and repeat the command; what is done stays done."
        ) from error


def seeds_of(claim: Claim, chosen: str) -> list[int]:
    """The seeds that `chosen` names: dev, confirm, or numbers."""
    if chosen == "dev":
        return claim.seeds.development
    return claim.seeds.confirmation if chosen == "confirm" else [int(seed) for seed in chosen.split(",")]


def _seeds_setting(settings: Sequence[str]) -> str:
    """The value of seeds=. Raises ConfigError if it is none, or for another setting."""
    chosen = "confirm"
    for setting in settings:
        key, _, chosen = setting.partition("=")
        if key != "seeds":
            raise ConfigError(f"{setting}: the only setting here is seeds=. A claim's runs are set in its file.")
    if not re.fullmatch(r"dev|confirm|\d+(,\d+)*", chosen):
        raise ConfigError(f"seeds={chosen}: is not a choice of seeds. Use seeds=dev, seeds=confirm or seeds=0,1,2.")
    return chosen


def _report(claims: Sequence[Claim]) -> None:
    """Print the table of these claims, and write the page, which also has the other claims of r1zero."""
    facts = [claim_facts(claim) for claim in claims]
    names = [claim.name for claim in claims]
    others = [claim_facts(read_claim(name)) for name in claim_files() if name not in names]
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_whole(FOLDER / PAGE, science_page([*facts, *others]))
    console = Screen(width=None if sys.stdout.isatty() else 160)
    console.print(science_table(facts))
    console.print(f"The page is {FOLDER / PAGE}. Open it in a browser.", highlight=False, soft_wrap=True)


def _list() -> str:
    """One line for each claim: its name and the comment in the first line of its file."""
    first_lines = {name: file.read_text(encoding="utf-8").split("\n")[0] for name, file in claim_files().items()}
    return "\n".join(f"  {name:<20}{line.lstrip('# ')}" for name, line in first_lines.items())
