"""How long ranks wait for each other in an update: `python benchmarks/bench_balance.py`.

Each rank has 64 responses of the benchmarks' model with log-normal lengths (mean 64, at most 256 tokens). A rank's work
is its processor time in an update; each rank waits for the busiest one. Two cases are compared: each rank trains on the
responses that it sampled, or on an equal share of the tokens.
"""

import json
import math
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from relay import Turns, on_ranks
from results import run_alone, scratch, table
from workload import PROMPT_TOKENS, SIGMA, WORKLOADS, write_model

RANKS = (2, 4)
RESPONSES, MEAN, LONGEST = 64, 64, 256  # responses per rank; their tokens


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """For each number of ranks: the mean share of an update that ranks are idle, `before` and `after`, and the largest
    difference of a weight between the two.
    """
    import torch
    from safetensors.torch import load_file

    write_model(scratch() / "model", WORKLOADS["varied"])
    figures = {}
    for ranks in RANKS:
        weights, idle = {}, {}
        for name, is_balanced in (("before", False), ("after", True)):
            folder = Path(tempfile.mkdtemp(dir=scratch()))
            _on_ranks(ranks, scratch() / "model", folder, rounds, is_balanced)
            work = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
            idle[name] = sum(1 - sum(seconds) / ranks / max(seconds) for seconds in zip(*work, strict=True)) / rounds
            weights[name] = load_file(folder / "weights.safetensors")
        differences = [(weights["before"][name] - weight).abs().max() for name, weight in weights["after"].items()]
        figures[f"{ranks}"] = idle | {"difference": torch.stack(differences).max().item()}
    return figures


def report(figures: dict[str, dict[str, float]]) -> str:
    """The figures as a table in Markdown."""
    rows = [[n, f"{f['before']:.1%}", f"{f['after']:.1%}", f"{f['difference']:.1g}"] for n, f in figures.items()]
    return table(["ranks", "idle, as sampled", "idle, balanced by tokens", "largest difference of a weight"], rows)


def _on_ranks(ranks: int, *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=on_ranks, args=(ranks, None, _update, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, "a rank has failed: its traceback is above"


def _update(_: Turns | None, model: Path, folder: Path, rounds: int, is_balanced: bool) -> None:
    """Run updates on this rank. Rank r writes its seconds of work to `<folder>/<r>.json`, rank 0 also the weights."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    from safetensors.torch import save_file

    from grpo_cli.choices import DType
    from grpo_cli.config.cluster import ClusterConfig
    from grpo_cli.config.model import ModelConfig
    from grpo_cli.config.train import TrainConfig
    from grpo_cli.model import load_base_model
    from grpo_cli.ranks import gather, rank, world_size
    from grpo_cli.training import policy as policy_module
    from grpo_cli.training.batch import TrainingSequence
    from grpo_cli.training.engine import init_distributed
    from grpo_cli.training.policies import rl_policy

    config = TrainConfig(model=ModelConfig(name="bench", path=str(model)))
    config.cluster = ClusterConfig(dtype=DType.fp32, tokens_per_microbatch=2048)
    config.optimizer.lr, config.optimizer.eps = 1e-4, 1e-3  # otherwise Adam's first steps magnify rounding errors
    init_distributed(config.cluster)
    if not is_balanced:
        policy_module.balanced = list
    policy = rl_policy(load_base_model(config.model, needed_len=PROMPT_TOKENS + LONGEST), config)
    draw, seconds = random.Random(rank()), []
    for step in range(rounds + 1):
        sequences = []
        for _ in range(RESPONSES):
            length = min(LONGEST, max(1, round(draw.lognormvariate(math.log(MEAN) - SIGMA**2 / 2, SIGMA))))
            tokens = tuple(draw.randrange(1000) for _ in range(PROMPT_TOKENS + length))
            prompt, response = tokens[:PROMPT_TOKENS], tokens[PROMPT_TOKENS:]
            weight = 1 / (world_size() * RESPONSES * length)
            sequences.append(TrainingSequence(prompt, response, (-7.0,) * length, draw.gauss(0, 1), weight))
        gather(None)
        started = time.process_time()
        policy.update([sequences])
        if step > 0:  # the first one warms up
            seconds.append(time.process_time() - started)
    (folder / f"{rank()}.json").write_text(json.dumps(seconds))
    weights = {name: weight.clone().contiguous() for name, weight in policy.named_weights()}
    if rank() == 0:
        save_file(weights, folder / "weights.safetensors")
    gather(None)


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
