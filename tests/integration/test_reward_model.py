"""A reward model is trained and then scores a run, with the real engines and the built-in model."""

import json
import random
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from grpo_cli.choices import Device
from grpo_cli.config.examples import PreferencesConfig
from grpo_cli.config.supervised import RewardModelTask
from grpo_cli.data import make_zero
from grpo_cli.data.preferences import load_preferences
from grpo_cli.reward.model import reward_model
from grpo_cli.reward.terms import ModelTerm
from grpo_cli.types import Completion, Problem

RAGGED = [((5, 6, 7), (8,)), ((4, 9), (4, 9, 2, 3, 11)), ((30, 31), (32, 33)), ((12,), (13, 14, 15, 16, 17, 18, 19))]


@pytest.mark.parametrize("tokens_per_microbatch", [1, 20, 1000])
def test_a_step_matches_plain_torch_for_any_split_of_the_pairs(ranks, config, model, tokens_per_microbatch):
    from grpo_cli.training.reward_model import Pair, RewardLearner

    # With such a large eps, a weight changes in proportion to its gradient, not by the sign of a tiny one.
    optimizer = replace(config.optimizer, lr=0.1, eps=1.0, weight_decay=0.1, max_grad_norm=0.5)
    cluster = replace(config.cluster, tokens_per_microbatch=tokens_per_microbatch)
    task = RewardModelTask(seed=3, model=config.model, optimizer=optimizer, cluster=cluster)
    learner = RewardLearner(model, task, steps=1)
    pairs = [Pair(*ids) for ids in RAGGED]
    tally = learner.update(pairs).compute()

    torch.manual_seed(3)
    plain = AutoModelForSequenceClassification.from_pretrained(model.folder, num_labels=1, dtype=torch.float32)
    adamw = torch.optim.AdamW(plain.parameters(), lr=0.1, betas=tuple(optimizer.betas), eps=1.0, weight_decay=0.1)

    def loss_of(pair):
        better, worse = (plain(torch.tensor([ids])).logits[0, 0] for ids in (pair.chosen, pair.rejected))
        return -logsigmoid(better - worse)

    loss = sum(loss_of(pair) for pair in pairs) / len(pairs)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    adamw.step()
    assert tally["policy/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert tally["policy/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for pair in pairs:
        after = learner.measure([pair], "x").compute()
        assert after["x/loss"] == pytest.approx(loss_of(pair).item(), abs=1e-5)
        assert after["x/pair_accuracy"] == (after["x/margin"] > 0)


def write_pairs(path, num: int) -> None:
    """Write pairs of a candidate that makes 0 and one that does not, each worked out and labelled correctly."""
    draw = random.Random(0)
    with path.open("w") as file:
        for problem in draw.sample(make_zero.problems(), num):
            first, *terms = map(int, problem.text.split())
            written = {}
            for signs in make_zero.CANDIDATES:
                signed = [sign * term for sign, term in zip(signs, terms, strict=True)]
                verdict = "no" if first + sum(signed) else "yes"
                numbers = " ".join([str(first), *(f"{number:+d}" for number in signed)])
                written[verdict] = f"<think> {numbers} {verdict} </think> <answer> {numbers} </answer>"
            row = {"id": problem.id, "problem": problem.text, "chosen": written["yes"], "rejected": written["no"]}
            file.write(json.dumps(row) + "\n")


def test_a_reward_model_is_trained_and_scores_the_general_prompts_of_a_run(r1zero, tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", 300)
    trained = r1zero(
        *("reward-model", "data.path=pairs.jsonl", "epochs=3", "batch_size=32", "run.dir=scorer", "logger=none"),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    before, *_, after = map(json.loads, (tmp_path / "scorer/metrics.jsonl").read_text().splitlines())
    assert after["eval/heldout/pair_accuracy"] >= 0.95 > before["eval/heldout/pair_accuracy"]
    assert after["eval/heldout/loss"] < 0.3 < before["eval/heldout/loss"]

    # The exported model gives the held-out accuracy that was measured in training.
    heldout = load_preferences(PreferencesConfig(path=str(tmp_path / "pairs.jsonl")), seed=0).heldout
    scorer = reward_model("model", ModelTerm(path=str(tmp_path / "scorer/model"), device="cpu"), Device.cpu)
    margins = []
    for pair in heldout:
        better, worse = (
            scorer.submit(Completion((), (), text, truncated=False), Problem("p", pair.problem, "", "model"), 1)
            for text in (pair.chosen, pair.rejected)
        )
        margins.append(better.result() - worse.result())
    scorer.close()
    assert sum(margins) / len(margins) == pytest.approx(after["eval/heldout/margin"], abs=1e-3)

    run = r1zero(
        *("train", "data=make_zero_general", "reward=r1_general", "reward.terms.model.path=scorer/model"),
        *("reward.terms.model.from_step=2", "steps=2", "rollout.prompts_per_step=16", "rollout.max_new_tokens=64"),
        *("data.num_heldout=8", "run.dir=mixed", "logger=none"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    _, first, second = map(json.loads, (tmp_path / "mixed/metrics.jsonl").read_text().splitlines())
    assert "reward_term/model/mean" not in first
    assert "reward_term/model/mean" in second
    for row in (first, second):
        assert 0 < row["group/general"] < 1
        assert row["verify/correct"] == row["reward_term/accuracy/mean"]
