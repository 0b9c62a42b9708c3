"""Writes the folder of a small run, as training leaves it, for the tests of its page."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_cli.runs.frozen import frozen_text

RIGHT, WRONG = "<think> so </think> <answer> 7 </answer>", "no wait <answer> 8 </answer>"


def response(text: str, *, correct: bool | None, tokens: int = 5, **other: Any) -> dict[str, Any]:
    terms = {"accuracy": float(bool(correct)), "format": 1.0}
    return {
        "text": text,
        "tokens": tokens,
        "truncated": False,
        "reward": terms["accuracy"] + 0.1,
        "terms": terms,
        "extracted": "7" if correct else "8",
        "correct": correct,
        "advantage": 0.5 if correct else -0.5,
    } | other


def group(step: int, problem: str, responses: Sequence[Mapping[str, Any]], split: str = "train") -> dict[str, Any]:
    return {
        "step": step,
        "split": split,
        "problem": problem,
        "question": f"What is {problem}?",
        "prompt": f"What is {problem}? :",
        "answer": "7",
        "responses": list(responses),
    }


def write_groups(folder: Path, groups: Sequence[Mapping[str, Any]]) -> None:
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {}
    for each in groups:
        files.setdefault(f"{each['split']}_{each['step']:06}.jsonl.gz", []).append(json.dumps(each) + "\n")
    for name, lines in files.items():
        (folder / "rollouts" / name).write_bytes(gzip.compress("".join(lines).encode()))


def metrics_row(step: int, accuracy: float, *, evaluated: bool = False) -> dict[str, float]:
    row: dict[str, float] = {"step": step}
    if step:
        row |= {
            "reward/mean": accuracy,
            "verify/correct": accuracy,
            "length/mean": 20.0 + step,
            "rollout/tokens": 100.0,
        }
        row |= {"time/step": 2.0, "policy/entropy": 0.5}
    if evaluated:
        name = "eval/heldout/avg"
        row |= {name: accuracy, f"{name}_se": 0.02, f"{name}_low": accuracy - 0.04, f"{name}_high": accuracy + 0.04}
    return row


def write_run(
    folder: Path, config: Any, rows: Sequence[Mapping[str, float]], groups: Sequence[Mapping[str, Any]]
) -> Path:
    """A finished run with these metrics and groups."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(frozen_text(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "result.json").write_text(json.dumps(rows[-1]))
    (folder / "model").mkdir()
    write_groups(folder, groups)
    return folder


def learning_rows() -> list[dict[str, float]]:
    return [metrics_row(step, 0.2 + 0.03 * step, evaluated=step % 10 == 0) for step in range(21)]


def learning_groups() -> list[dict[str, Any]]:
    """Two training problems at each step, and a held-out one that is solved on the way."""
    groups = []
    for step in range(1, 21):
        mixed = [
            response(RIGHT, correct=True, tokens=9),
            response(WRONG, correct=False),
            response(WRONG, correct=False),
        ]
        groups += [group(step, f"3+{step}", mixed), group(step, f"4+{step}", [response(RIGHT, correct=True)] * 3)]
    for step in (0, 10, 20):
        solved = response(RIGHT, correct=True) if step else response(WRONG, correct=False)
        groups.append(group(step, "held", [solved | {"advantage": None}], split="heldout"))
    return groups
