"""`r1zero grade`: grade answers from a file, and give the reasons."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from grpo_cli.choices import AnswerMarker, Grader
from grpo_cli.commands.grade_run import cases_of_last_step, grade_run, print_comparison
from grpo_cli.config.reward import RewardConfig
from grpo_cli.errors import DataError
from grpo_cli.grading import Extraction, Judgement, VerifierPool, extract_answer
from grpo_cli.jsonl import check_unique, read_jsonl
from grpo_cli.metrics.console import clip
from grpo_cli.progress import progress
from grpo_cli.reward.terms.format import format_reward
from grpo_cli.sandbox import grade_code, stated_code
from grpo_cli.screen import Screen
from grpo_cli.types import BY_RULE, Verdict

DESCRIPTION = """\
Grade answers as training would, and say why.

The cases are a JSONL file with one object per line:
  id, gold      the case's id, and its gold answer (the right one)
  completion    the response (or `prediction`)
  prefix        optional: the start of the response that the template already gives, such as <think>
  gen           optional, for long responses: {prefix, repeat, times, suffix} instead of the completion
  form          r1 (the default): think and answer tags; boxed; answer: only the final answer;
                text: free text; the last box, otherwise a stated final answer, otherwise the last expression
  grader        math (the default), expression, or code (the gold then holds the tests)

With the folder of a run, the responses in its rollouts/ are graded again, and the verdicts are compared with the run's;
the table shows those of the last step.
"""
EXAMPLES = """\
examples:
  r1zero grade cases.jsonl
  r1zero grade cases.jsonl out=verdicts.jsonl
  r1zero grade runs/quickstart
  echo '{"id": 1, "form": "answer", "completion": "1/2", "gold": "0.5"}' > one.jsonl; r1zero grade one.jsonl
"""


class Form(StrEnum):
    r1 = auto()
    boxed = auto()
    answer = auto()
    text = auto()


_MARKERS = {Form.r1: AnswerMarker.answer_tag, Form.boxed: AnswerMarker.boxed, Form.text: AnswerMarker.text}
MAX_SHOWN, MAX_WIDTH = 40, 80  # cases in the table, characters in a cell


def main(argv: list[str]) -> None:
    """Grade a file of cases or the kept responses of a run. Raises DataError if they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="r1zero grade",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", type=Path, help="a JSONL file of cases, or the folder of a run of `r1zero train`")
    parser.add_argument("out", nargs="?", type=_out, metavar="out=FILE", help="write the verdicts there, as JSONL")
    arguments = parser.parse_args(argv)
    if not arguments.cases.exists():
        raise DataError(
            f"{arguments.cases} cannot be read: there is no such file or folder. Give a JSONL file of cases, or the "
            "folder of a run; `r1zero runs` lists the runs."
        )
    is_run = arguments.cases.is_dir()
    rows = grade_run(arguments.cases) if is_run else list(grade(read_cases(arguments.cases)))
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    console = Screen()
    console.print(_case_table(list(grade(cases_of_last_step(arguments.cases))) if is_run else rows))
    if is_run:
        print_comparison(rows)
    else:
        _print_summary(rows, console)
    console.print(
        f"The verdicts are in {arguments.out}" if arguments.out else "Add out=verdicts.jsonl for each verdict.",
        highlight=False,
    )


def _out(argument: str) -> Path:
    key, _, path = argument.partition("=")
    if key != "out" or not path:
        raise argparse.ArgumentTypeError(f"{argument}: write out=FILE, for example out=verdicts.jsonl")
    if not Path(path).parent.is_dir():
        raise argparse.ArgumentTypeError(f"{argument}: there is no folder {Path(path).parent}. Create it first.")
    return Path(path)


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a file, each with the full `text` of its response and the `marker` of its answer.

    The marker is None if the text is the answer. Raises DataError, which names file and line.
    """
    cases = read_jsonl(
        path,
        _case,
        f"A case is a JSON object with id, gold and completion, and a form that is one of {', '.join(Form)}.",
    )
    if not cases:
        raise DataError(f"{path}: is empty. Give one JSON object per line, with id, gold and completion.")
    check_unique(path, {number: str(case["id"]) for number, case in cases.items()}, "the id")
    return list(cases.values())


def _case(row: Mapping[str, Any]) -> dict[str, Any]:
    if generated := row.get("gen"):
        completion = generated["prefix"] + generated["repeat"] * generated["times"] + generated["suffix"]
    else:
        completion = row["completion"] if "completion" in row else row["prediction"]
    prefix = row.get("prefix") or ""
    for key, value in {"completion": completion, "prefix": prefix}.items():
        if not isinstance(value, str):
            raise ValueError(f"{key} is {json.dumps(value)[:60]}, and must be text")
    for key in ("id", "gold"):
        if not isinstance(row[key], str | int | float):
            raise ValueError(f"{key} is {json.dumps(row[key])[:60]}, and must be text or a number")
    if (grader := Grader(row.get("grader", Grader.math))) == Grader.model:
        raise ValueError("the grader `model` is a reward model and cannot be used here")
    form, gold = Form(row.get("form", Form.r1)), str(row["gold"])
    if form == Form.text and grader != Grader.code:  # the gold may be free text too
        gold = extract_answer(gold, AnswerMarker.text).answer or gold
    return {
        "id": row["id"],
        "gold": gold,
        "text": prefix + completion,
        "marker": _MARKERS.get(form),
        "grader": grader,
        "truncated": False,
    }


def grade(cases: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The verdict of each case as a row. Cases are graded one at a time, so that `ms` is the time of one case."""
    defaults = RewardConfig()
    with VerifierPool(1, defaults.timeout_s, defaults.memory_gib) as verifier:
        verifier.judge(Grader.math, "x", "2x").result()  # otherwise the first case's time includes the start-up
        with progress(Screen(stderr=True), "grading", len(cases)) as count:
            for case in cases:
                started = time.perf_counter()
                extraction, judgement = _judge(verifier, case)
                yield {
                    "id": case["id"],
                    "accuracy": int(judgement.verdict == Verdict.correct),
                    "format": int(format_reward(case["text"])),
                    "verdict": judgement.verdict.value,
                    "extracted": extraction.answer,
                    "gold": case["gold"],
                    "end": case["text"][-MAX_WIDTH:],
                    "reason": judgement.reason,
                    "ms": round((time.perf_counter() - started) * 1000, 3),
                }
                count()


def _judge(verifier: VerifierPool, case: Mapping[str, Any]) -> tuple[Extraction, Judgement]:
    gold, marker = case["gold"], case["marker"]
    if case["truncated"]:
        return Extraction(None), Judgement(Verdict.unparsable, "cut at the token limit")
    if case["grader"] == Grader.code:
        grade = grade_code(gold, case["text"])
        return Extraction(stated_code(gold, case["text"])), Judgement(grade.verdict, grade.reason)
    extraction = extract_answer(case["text"], marker) if marker else Extraction(case["text"])
    if extraction.answer is None:
        return extraction, Judgement(Verdict.unparsable, extraction.reason)
    return extraction, verifier.judge(case["grader"], gold, extraction.answer).result()


def _case_table(rows: list[dict[str, Any]]) -> Table:
    """Why each case got its verdict. Of many cases, those that are not correct come first."""
    title = None
    if len(rows) > MAX_SHOWN:
        title = f"{MAX_SHOWN} of {len(rows)} cases, first those that are not correct"
        rows = sorted(rows, key=lambda row: row["verdict"] == Verdict.correct)[:MAX_SHOWN]
    table = Table("case", "verdict", "extracted", "gold answer", "why", title=title)
    for row in rows:
        found = row["extracted"] if row["extracted"] is not None else f"none; it ends in: {row['end']}"
        cells = (str(row["id"]), row["verdict"], found, row["gold"], row["reason"])
        table.add_row(*(escape(clip(cell, MAX_WIDTH)) for cell in cells))
    return table


def _print_summary(rows: list[dict[str, Any]], console: Screen) -> None:
    table = Table("verdict", "cases", "share", title=f"{len(rows)} cases")
    counts = Counter(row["verdict"] for row in rows)
    for verdict in BY_RULE:
        table.add_row(verdict.value, str(counts[verdict]), f"{counts[verdict] / len(rows):.1%}")
    well_formed = sum(row["format"] for row in rows)
    table.add_row("well-formed", str(well_formed), f"{well_formed / len(rows):.1%}")
    console.print(table)
    slowest = max(rows, key=lambda row: row["ms"])
    console.print(f"slowest: {slowest['id']} in {slowest['ms']:.0f} ms", highlight=False)
