"""Size and time of the page of a large run: 200 steps of 512 prompts x 8 responses of 4,096 tokens.

The run is synthetic: its texts are random words, which compress less than a model's. As many groups are kept as by
default. Prints one JSON line.

    python benchmarks/report_size.py                  # write the run and its page in a temporary folder
    python benchmarks/report_size.py --keep FOLDER    # ... in FOLDER, and open FOLDER/report.html in a browser
"""

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.report.page import PAGE, write_page
from grpo_cli.runs.frozen import frozen_text

STEPS, GROUPS, HELDOUT, RESPONSES, TOKENS, EVERY = 200, 8, 32, 8, 4096, 50
SETTINGS = [
    *("rollout.prompts_per_step=512", "rollout.group_size=8", f"rollout.max_new_tokens={TOKENS}", f"steps={STEPS}"),
    *("model=qwen2_5_math_1_5b", "template=qwen_math", "reward=boxed", "data=math_12k", "cluster=gpu_1"),
]
WORDS = [f"{a}{b}{c}" for a in ("re", "con", "sub", "in", "tri") for b in "aeiou" for c in ("vide", "ms", "ngle", "r")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder for the run")
    folder = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        measure(folder or Path(temporary) / "run")


def measure(folder: Path) -> None:
    """Write the run, then its page as at an evaluation: in a process that has written one before."""
    write_run(folder)
    seconds = []
    for _ in range(2):
        start = time.process_time()
        write_page([folder], folder / PAGE)
        seconds.append(round(time.process_time() - start, 2))
    result = {
        "rollouts_mb": round(sum(file.stat().st_size for file in (folder / "rollouts").iterdir()) / 1e6, 1),
        "page_mb": round((folder / PAGE).stat().st_size / 1e6, 2),
        "first_cpu_s": seconds[0],
        "again_cpu_s": seconds[1],
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(result))


def write_run(folder: Path) -> None:
    draw = random.Random(0)
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_typed(compose("train", [f"run.dir={folder}", *SETTINGS]), "train")
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text(frozen_text(config))
    with (folder / "metrics.jsonl").open("w") as metrics:
        for step in range(STEPS + 1):
            metrics.write(json.dumps(_row(step, draw)) + "\n")
            if step:
                _write(folder, "train", step, [_group(draw, step, "train", n, RESPONSES) for n in range(GROUPS)])
            if step % EVERY == 0:
                _write(folder, "heldout", step, [_group(draw, step, "heldout", n, 1) for n in range(HELDOUT)])


def _row(step: int, draw: random.Random) -> dict[str, float]:
    share = 0.2 + 0.6 * step / STEPS
    row = {"step": step, "reward/mean": share, "verify/correct": share, "length/mean": TOKENS * draw.random()}
    if step % EVERY == 0:
        name = "eval/heldout/avg"
        row |= {name: share, f"{name}_se": 0.02, f"{name}_low": share - 0.04, f"{name}_high": share + 0.04}
    return row


def _group(draw: random.Random, step: int, split: str, number: int, num: int) -> dict[str, Any]:
    is_train = split == "train"
    question = " ".join(draw.choices(WORDS, k=60))
    return {
        "step": step,
        "split": split,
        "problem": f"{split}-{step if is_train else 0}-{number}",
        "question": question,
        "prompt": question,
        "answer": "42",
        "responses": [_response(draw, is_train) for _ in range(num)],
    }


def _response(draw: random.Random, is_train: bool) -> dict[str, Any]:
    is_right = draw.random() < 0.5
    return {
        "text": " ".join(draw.choices(WORDS, k=TOKENS // 2)),
        "tokens": TOKENS,
        "truncated": False,
        "reward": float(is_right),
        "terms": {"accuracy": float(is_right)},
        "extracted": "42" if is_right else "41",
        "correct": is_right,
        "advantage": draw.gauss(0, 1) if is_train else None,
    }


def _write(folder: Path, split: str, step: int, groups: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(group) + "\n" for group in groups)
    (folder / "rollouts" / f"{split}_{step:06}.jsonl.gz").write_bytes(gzip.compress(text.encode(), 6, mtime=0))


if __name__ == "__main__":
    main()
