"""Grades each reference solution against its own answer and each answer against the next problem's: `... FILE.jsonl`.

FILE has `answer`, and `solution` if it is known. At least 99.5 % of the solutions should be right, and neighbouring
answers only if they are equal.
"""

import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path

from grpo_cli.config.reward import RewardConfig
from grpo_cli.grading import VerifierPool
from grpo_cli.grading.extraction import last_box
from grpo_cli.grading.latex import canonical
from grpo_cli.types import Verdict


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    golds = [str(row["answer"]) for row in rows]
    solutions = [row.get("solution") or rf"\boxed{{{gold}}}" for row, gold in zip(rows, golds, strict=True)]
    config = RewardConfig()
    with VerifierPool(2, config.timeout_s, config.memory_gib) as verifier:
        own = [(gold, last_box(solution).answer or "") for gold, solution in zip(golds, solutions, strict=True)]
        verdicts = _judge(verifier, own)
        rejected = [pair for pair, verdict in zip(own, verdicts, strict=True) if verdict != Verdict.correct]
        print(f"own: {Counter(verdicts)}: {1 - len(rejected) / len(own):.2%} correct")
        for gold, answer in rejected:
            print(f"  rejected: {gold}   {answer}")
        neighbours = list(itertools.pairwise(golds))
        verdicts = _judge(verifier, neighbours)
        accepted = [pair for pair, verdict in zip(neighbours, verdicts, strict=True) if verdict == Verdict.correct]
        spelt_differently = [(gold, answer) for gold, answer in accepted if canonical(gold) != canonical(answer)]
        share = len(spelt_differently) / len(neighbours)
        print(f"neighbours: {Counter(verdicts)}: {share:.2%} accepted, spelt differently")
        for gold, answer in spelt_differently:
            print(f"  accepted: {gold}   {answer}")


def _judge(verifier: VerifierPool, pairs: list[tuple[str, str]]) -> list[Verdict]:
    started = time.perf_counter()
    verdicts = [judgement.result().verdict for judgement in [verifier.judge("math", *pair) for pair in pairs]]
    print(f"{len(pairs)} pairs in {time.perf_counter() - started:.1f} s")
    return verdicts


if __name__ == "__main__":
    main()
