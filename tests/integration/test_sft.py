"""`r1zero sft` matches plain PyTorch for any split of a batch, and a killed run resumes with the same bits."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from grpo_cli.config.supervised import SFTTask
from grpo_cli.training.batch import TrainingSequence, weighted_minibatch
from grpo_cli.training.policies import LIKELIHOOD, sft_policy
from grpo_cli.training.policy import Policy

# Prompts of 5 and 2 tokens, responses of 1 to 17.
EXAMPLES = [
    ((23, 15, 16, 12, 6)[: 5 - 3 * (n % 2)], tuple((7 * n + 11 * i) % 178 + 2 for i in range(1 + 4 * n)))
    for n in range(5)
]


def sequences() -> list[TrainingSequence]:
    return [TrainingSequence(prompt, response, advantage=1.0) for prompt, response in EXAMPLES]


def task(config) -> SFTTask:
    config.optimizer.eps = 1e-3  # otherwise Adam's first step is the sign of the gradient, which magnifies rounding
    config.optimizer.lr = 1e-2
    return SFTTask(model=config.model, optimizer=config.optimizer, cluster=config.cluster)


def one_step(policy: Policy) -> dict[str, float]:
    examples = sequences()
    weights = torch.ones(len(examples))
    return policy.update([weighted_minibatch(examples, weights, weights.bool(), LIKELIHOOD, 64)]).compute()


def plain_step(model, config) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean of -log p over all response tokens, and the weights after one step, with only transformers and torch."""
    network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    settings = {"lr": config.optimizer.lr, "betas": config.optimizer.betas, "eps": config.optimizer.eps}
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0, **settings)
    total, count = 0.0, 0
    for prompt, response in EXAMPLES:
        ids = torch.tensor([[*prompt, *response]])
        logprobs = network(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        total = total - logprobs.gather(1, torch.tensor(response)[:, None]).sum()
        count += len(response)
    (total / count).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.max_grad_norm)
    optimizer.step()
    return (total / count).item(), dict(network.named_parameters())


@pytest.mark.parametrize("tokens_per_microbatch", [1, 40, 10_000])
def test_loss_and_step_match_plain_pytorch_for_any_micro_batches(tokens_per_microbatch, ranks, model, config):
    config.cluster.tokens_per_microbatch = tokens_per_microbatch
    policy = sft_policy(model, task(config), steps=1)
    total, count = policy.negative_log_likelihood(sequences())
    metrics = one_step(policy)
    loss, weights = plain_step(model, config)
    assert metrics["policy/loss"] == pytest.approx(loss, rel=1e-6)
    assert total / count == pytest.approx(loss, rel=1e-6)
    found = dict(policy.named_weights())
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.detach(), rtol=0, atol=1e-6)


RUN = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.optimizer import OptimizerConfig
from grpo_cli.config.supervised import SFTTask
from grpo_cli.model import load_base_model
from grpo_cli.ranks import rank, world_size
from grpo_cli.training.batch import TrainingSequence, weighted_minibatch
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.policies import LIKELIHOOD, sft_policy

cluster = ClusterConfig(dtype=DType.fp32, zero_stage=int(sys.argv[3]), gradient_checkpointing=False)
init_distributed(cluster)
path = ModelConfig(name="tiny", path="builtin:make_zero")
config = SFTTask(model=path, cluster=cluster, optimizer=OptimizerConfig(lr=1e-2, eps=1e-3))
policy = sft_policy(load_base_model(path), config, steps=1)
examples = [TrainingSequence(*pair, advantage=1.0) for pair in eval(sys.argv[2])][rank()::world_size()]
ones = torch.ones(len(examples))
policy.update([weighted_minibatch(examples, ones, ones.bool(), LIKELIHOOD, 64)])
weights = {name: weight.clone().contiguous() for name, weight in policy.named_weights()}
if rank() == 0:
    save_file(weights, sys.argv[1])
"""


def test_two_ranks_take_the_same_step_as_one(ranks, model, config, run_on_ranks, tmp_path):
    run_on_ranks(RUN, str(tmp_path / "two.safetensors"), repr(EXAMPLES), "3", num_ranks=2)
    _, weights = plain_step(model, task(config))
    found = load_file(tmp_path / "two.safetensors")
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.detach(), rtol=0, atol=1e-6)


SMALL = [
    *("sft", "model=tiny_mixed", "epochs=1", "batch_size=32", "data.num_heldout=32", "checkpoint.every_steps=2"),
    *("benchmark=[]", "eval.every_steps=0", "logger=console"),
]


def rows(run_dir: Path) -> list[dict]:
    """The metrics of a run without its times."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(("time/", "perf/"))} for row in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, r1zero) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    done = r1zero(*SMALL, "run.dir=whole", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "heldout/loss" in done.stdout
    return folder / "whole"


def test_the_held_out_loss_falls_and_the_model_is_exported(uninterrupted):
    metrics = rows(uninterrupted)
    assert metrics[-1]["eval/heldout/loss"] < metrics[0]["eval/heldout/loss"] - 0.05
    assert [row["step"] for row in metrics] == list(range(16))  # 512 traces minus 32 held-out ones, in batches of 32
    card = (uninterrupted / "model" / "README.md").read_text()
    assert "15 steps of supervised fine-tuning" in card
    assert "1 epochs in batches of 32" in card
    AutoModelForCausalLM.from_pretrained(uninterrupted / "model")


def test_a_killed_and_resumed_run_gives_the_same_bits(uninterrupted):
    folder = uninterrupted.parent
    command = [Path(sys.executable).parent / "r1zero", *SMALL, "run.dir=killed"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((folder / "killed").glob("checkpoints/step_00000[4-9]")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run([*command, "resume=auto"], cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert rows(folder / "killed") == rows(uninterrupted)
    weights = "model/model.safetensors"
    assert (folder / "killed" / weights).read_bytes() == (uninterrupted / weights).read_bytes()


def test_words_that_the_model_does_not_know_are_reported(tmp_path, r1zero):
    done = r1zero(
        *("sft", "model=tiny", "data.source=builtin:tiny_mixed", "benchmark=[]", "logger=none", "run.dir=run"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "461 of 461 responses have words that the model's tokenizer does not know" in done.stderr


def test_pass_at_1_is_measured_with_vllm(tmp_path, r1zero):
    problems = [{"id": "1", "problem": "13 5 6 2", "answer": "13 5 6 2 = 0"}]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems * 1))
    done = r1zero(
        *("sft", "model=tiny_mixed", "epochs=0.1", "data.num_heldout=4", "logger=none", "run.dir=run"),
        *("benchmark=file", "benchmark.file.path=problems.jsonl", "benchmark.file.grader=expression"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {"eval/file/avg", "eval/heldout/loss"} <= rows(tmp_path / "run")[0].keys()
