"""How often `r1zero grade` agrees with published cases, by form and kind: `python benchmarks/grade_cases.py FOLDER`.

FOLDER contains public.jsonl and adversarial_public.jsonl. Goals: of the uncontested cases, at least 97 % with the forms
r1 and answer are right, 93 % with the form text; at most one wrong answer in 200 passes; all adversarial cases get
their expected format and accuracy within their time.
"""

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from grpo_cli.commands import grade


def main() -> None:
    folder, verbose = Path(sys.argv[1]), "-v" in sys.argv
    with tempfile.TemporaryDirectory() as scratch:
        cases, adversarial = (
            _graded(folder / name, Path(scratch)) for name in ("public.jsonl", "adversarial_public.jsonl")
        )
    console = Console()
    console.print(_by_kind(cases))
    wrong = [(case, row) for case, row in cases if _counts(case) and row["accuracy"] != case["expected"]]
    for forms, least in ((("r1", "answer"), 97), (("text",), 93)):
        counted = [(case, row) for case, row in cases if _counts(case) and case["form"] in forms]
        right = sum(row["accuracy"] == case["expected"] for case, row in counted)
        console.print(
            f"{' and '.join(forms)}: {right} of {len(counted)} right, {right / len(counted):.1%} (at least {least} %)"
        )
    counted = sum(_counts(case) for case, _ in cases)
    false_positives = sum(row["accuracy"] for _, row in wrong)
    console.print(
        f"wrong answers that passed: {false_positives} of {counted}, {false_positives / counted:.2%} (at most 0.5 %)"
    )
    for part in ("format", "accuracy"):
        right = sum(row[part] == case[f"expect_{part}"] for case, row in adversarial)
        console.print(f"adversarial {part}: {right} of {len(adversarial)}")
    slow = [case["id"] for case, row in adversarial if row["ms"] > case["max_ms"]]
    console.print(f"adversarial over their time: {slow or 'none'}")
    if verbose:
        unexpected = [
            (c, r) for c, r in adversarial if r["accuracy"] != c["expect_accuracy"] or r["format"] != c["expect_format"]
        ]
        for case, row in wrong + unexpected:
            answer = case.get("prediction") or case.get("completion")
            console.print(case["id"], repr(case["gold"])[:200], repr(answer)[-200:], row, markup=False, highlight=False)


def _graded(path: Path, scratch: Path) -> list[tuple[dict, dict]]:
    out = scratch / path.name
    grade.main([str(path), f"out={out}"])
    return list(
        zip(*([json.loads(line) for line in each.read_text().splitlines()] for each in (path, out)), strict=True)
    )


def _counts(case: dict) -> bool:
    return not case.get("contested") and not case["kind"].startswith("format_")


def _by_kind(cases: list[tuple[dict, dict]]) -> Table:
    kinds = defaultdict(list)
    for case, row in cases:
        kinds[case["form"], case["kind"], bool(case.get("contested"))].append((case, row))
    table = Table("form", "kind", "contested", "cases", "right", "wrong passed", "right rejected")
    for (form, kind, contested), members in sorted(kinds.items()):
        key = "format" if kind.startswith("format_") else "accuracy"
        passed = sum(row[key] > case["expected"] for case, row in members)
        rejected = sum(row[key] < case["expected"] for case, row in members)
        counts = (len(members), len(members) - passed - rejected, passed or "", rejected or "")
        table.add_row(form, kind, "yes" if contested else "", *map(str, counts))
    return table


if __name__ == "__main__":
    main()
