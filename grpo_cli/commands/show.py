"""`r1zero show`: print a problem with all responses that a run has kept."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean
from grpo_cli.printing import printable
from grpo_cli.runs.rollouts import KeptGroup, KeptResponse, Split, kept_steps, read_groups, read_step
from grpo_cli.screen import Screen
from grpo_cli.types import Verdict

DESCRIPTION = """\
Print a problem and all its responses at a step of a run, sorted by advantage: each with its reward by term, verdict and
answer. The default is the first training problem of the last step.

  step=80     a step; step 0 has the held-out problems that are followed through training
  problem=ID  a problem, at the last step that has responses to it
"""
EXAMPLES = """\
examples:
  r1zero show runs/quickstart
  r1zero show runs/quickstart step=80
  r1zero show runs/quickstart step=0 problem=11-3-7-7
"""
NUM_LISTED = 40  # names of problems
COLOURS = {Verdict.correct: "green", Verdict.wrong: "red"}


def main(argv: list[str]) -> None:
    """Print a group. Raises ConfigError or DataError if the run does not have it."""
    parser = argparse.ArgumentParser(
        prog="r1zero show",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument(
        "choices", nargs="*", default=[], type=_choice, metavar="KEY=VALUE", help="step=80 or problem=ID (optional)"
    )
    options = parser.parse_args(argv)
    choices = dict(options.choices)
    step = int(choices["step"]) if "step" in choices else None
    _print(find_group(options.run, step, choices.get("problem")), options.run)


def _choice(argument: str) -> tuple[str, str]:
    key, _, value = argument.partition("=")
    if (key == "step" and value.isdecimal()) or (key == "problem" and value):
        return key, value
    raise argparse.ArgumentTypeError(f"{argument}: write step=80 or problem=ID")


def find_group(run_dir: Path, step: int | None, problem: str | None) -> KeptGroup:
    """The newest group that matches, training groups before held-out ones; None matches all.

    Raises ConfigError if there is none, and DataError if a file is damaged.
    """
    steps = sorted({kept for split in Split for kept in kept_steps(run_dir, split)})
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: there is no such folder. `r1zero runs` lists the runs.")
    if not steps:
        raise ConfigError(
            f"{run_dir} has no kept groups. Give the folder of a run of `r1zero train`; it keeps groups if "
            "logger.groups_per_step or logger.heldout_groups is above 0."
        )
    if step is not None and step not in steps:
        nearest = sorted(sorted(steps, key=lambda kept: abs(kept - step))[:2])
        advice = " or ".join(f"step={kept}" for kept in nearest)
        raise ConfigError(f"step={step}: no groups of this step are kept. Use {advice}.")
    known: dict[str, int] = {}  # the last step of each problem
    for searched in reversed(steps) if step is None else [step]:
        for group in _groups_of_step(run_dir, searched):
            if problem in (None, group.problem):
                return group
            known.setdefault(group.problem, searched)
    assert problem is not None
    where = "" if step is None else f" at step {step}"
    raise ConfigError(
        f"problem={problem}: no responses to it are kept{where}.{did_you_mean(problem, known)} Leave it out to see "
        "which problems there are."
    )


def _groups_of_step(run_dir: Path, step: int) -> Iterator[KeptGroup]:
    for split in (Split.train, Split.heldout):
        yield from read_step(run_dir, split, step)


def _print(group: KeptGroup, run_dir: Path) -> None:
    console = Screen(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.rule(f"step {group.step}, {group.split}, problem {group.problem}", align="left")
    console.print(Padding(Text(printable(group.prompt)), (0, 2)))
    console.print(Padding(Text.assemble(("gold answer: ", "dim"), printable(group.answer)), (0, 2)))
    order = sorted(enumerate(group.responses), key=lambda pair: (-(pair[1].advantage or 0.0), -pair[1].reward))
    for number, response in order:
        console.print(_panel(number, response))
    lines = []
    for split, label in ((Split.train, "Training problems"), (Split.heldout, "Held-out problems")):
        if problems := [other.problem for other in read_step(run_dir, split, group.step)]:
            more = f" and {len(problems) - NUM_LISTED} more" * (len(problems) > NUM_LISTED)
            lines.append(f"{label} of this step: {', '.join(problems[:NUM_LISTED])}{more}")
    if group.split is Split.heldout:  # few files, each with the same problems
        same = [other for other in read_groups(run_dir, Split.heldout) if other.problem == group.problem]
        lines.append(f"This problem by step: {', '.join(f'{g.step} {g.responses[0].verdict}' for g in same)}")
    lines.append(f"To see another: r1zero show {quote(str(run_dir))} step={group.step} problem=...")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _panel(number: int, response: KeptResponse) -> Panel:
    colour = COLOURS.get(response.verdict, "yellow")
    terms = ", ".join(f"{name} {value:g}" for name, value in response.terms.items())
    facts = [
        f"reward {response.reward:.3g} (before weights: {terms})",
        f"{response.tokens} tokens" + ", cut" * response.truncated,
    ]
    if response.advantage is not None:
        facts.insert(0, f"advantage {response.advantage:+.3f}")
    answer = "no answer" if response.extracted is None else f"answer {response.extracted}"
    head = printable("  ".join([*facts, answer]))
    body = Text.assemble((head, "dim"), "\n", printable(response.text))
    title = Text.assemble(f"{number} ", (response.verdict.value, colour))
    return Panel(body, title=title, title_align="left", border_style=colour)
