"""What checkpoints cost in the quickstart: their share of the time from the first step to the last.

    python benchmarks/bench_checkpoint.py [overrides of r1zero train]

This runs the quickstart with its own loop, and times each call that saves.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512", "DS_ACCELERATOR": "cpu"}
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_WAIT_POLICY": "PASSIVE"}

from hydra import compose, initialize_config_dir

from grpo_cli.analysis.report import read_metrics
from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.training import grpo
from grpo_cli.training.checkpoint import Checkpoints


def main() -> None:
    saves = []

    class TimedCheckpoints(Checkpoints):
        def maybe_save(self, *arguments, **options) -> None:
            started = time.perf_counter()
            super().maybe_save(*arguments, **options)
            saves.append(time.perf_counter() - started)

    grpo.Checkpoints = TimedCheckpoints
    with tempfile.TemporaryDirectory() as folder:
        register_schemas()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("train", ["logger=console", f"run.dir={folder}", *sys.argv[1:]])
        grpo.train(to_typed(composed, "train"), sys.stdout)
        steps_s = sum(row.get("time/step", 0.0) for row in read_metrics(Path(folder) / "metrics.jsonl"))
    total = steps_s + sum(saves)
    longest = sorted(saves)[-3:]
    print(f"{len(saves)} steps in {total:.1f} s; saving took {sum(saves):.2f} s = {sum(saves) / total:.2%} of it")
    print(f"the longest calls: {', '.join(f'{seconds * 1000:.0f} ms' for seconds in longest)}")


if __name__ == "__main__":
    main()
