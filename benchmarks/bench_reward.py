"""How many verdicts per second the reward layer gives: `python benchmarks/bench_reward.py MATH.jsonl`.

MATH.jsonl contains the reference answers of the batch (`answer`). Goals on two cores: 20,000 per second if exact
comparison is enough, 70 per second and process if Math-Verify must decide, 1,500 per second on a typical training
batch, and 8 seconds for 1,024 responses of which 10 hang.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from grpo_cli.choices import Device
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Completion, Problem, Verdict

TERMS = {"accuracy": {"weight": 1.0}, "format": {"weight": 0.1}}
HANGING = "9^{{9^{{9^{{{}}}}}}}"


def main() -> None:
    golds = [str(json.loads(line)["answer"]) for line in Path(sys.argv[1]).read_text().splitlines()]
    rng = random.Random(0)
    exact = [(str(7 * n), str(7 * n + n % 2)) for n in range(40_000)]
    measure("exact: distinct integers", exact, num_workers=1, wanted=20_000)
    measure("Math-Verify: distinct expressions, one process", list(map(algebra, range(600))), num_workers=1, wanted=70)
    batch = [(gold, answer) for gold in rng.sample(golds, 128) for answer in eight_answers(gold, golds, rng)]
    measure("a batch of 128 problems x 8, two processes", batch, num_workers=2, wanted=1_500)
    rest = [(str(n), f"${n}$") for n in range(1_014)]
    seconds, verdicts = measure(
        "1,024 responses of which 10 hang, two processes, limit 1 s",
        rng.sample([*rest, *((f"x+{n}", HANGING.format(n + 3)) for n in range(10))], 1_024),
        num_workers=2,
        timeout_s=1.0,
    )
    others_right = verdicts[Verdict.correct] == len(rest)
    print(f"    finished in {seconds:.1f} s (wanted 8), the other 1,014 right: {others_right}")


def measure(
    name: str, pairs: Sequence[tuple[str, str]], num_workers: int, timeout_s: float = 2.0, wanted: int | None = None
) -> tuple[float, Counter[Verdict]]:
    """The seconds from the first submission to the last score, and the number of each verdict."""
    config = RewardConfig(terms=TERMS, num_workers=num_workers, timeout_s=timeout_s)
    responses = [
        (Problem(str(n), "", gold), Completion((), (), f" so </think> <answer>{answer}</answer>", truncated=False))
        for n, (gold, answer) in enumerate(pairs)
    ]
    with Reward(config, TemplateConfig(response_prefix="<think>"), 100, Device.cpu) as reward:
        for n in range(4 * num_workers):  # starts the processes
            reward.submit(
                Problem("", "", f"{n}a+b"), Completion((), (), f"</think><answer>b+{n}a</answer>", False)
            ).result()
        started = time.perf_counter()
        scores = [future.result() for future in [reward.submit(*response) for response in responses]]
        seconds = time.perf_counter() - started
    verdicts = Counter(score.verdict for score in scores)
    goal = f" (wanted {wanted:,})" if wanted else ""
    print(f"{name}: {len(pairs) / seconds:,.0f} verdicts/s{goal}  {dict(verdicts)}", flush=True)
    return seconds, verdicts


def algebra(n: int) -> tuple[str, str]:
    """A reference answer and an answer that only algebra can compare; every fourth answer is wrong."""
    k, wrong = n + 2, n % 4 == 0
    families = (
        (rf"\frac{{{k}\sqrt{{3}}}}{{2}}", rf"\frac{{{k}}}{{2}}\sqrt{{3}}"),
        (rf"x^2+{2 * k}x+{k * k}", rf"(x+{k})^2"),
        (rf"{k}\pi-1", rf"-1+{k}\pi"),
        (rf"\frac{{{k}}}{{x+1}}", rf"{k}(x+1)^{{-1}}"),
        (rf"{k}+{k + 1}i", rf"{k + 1}i+{k}"),
    )
    gold, answer = families[n % len(families)]
    return gold, f"{answer}+1" if wrong else answer


def eight_answers(gold: str, golds: Sequence[str], rng: random.Random) -> list[str]:
    """Five right answers in different spellings and three wrong ones, two of them equal."""
    spellings = [gold, f"${gold}$", rf"\boxed{{{gold}}}", gold.replace(r"\frac", r"\dfrac"), f"{gold}."]
    common, rare = rng.sample(golds, 2)
    return rng.sample([*(rng.choice(spellings) for _ in range(5)), common, common, rare], 8)


if __name__ == "__main__":
    main()
