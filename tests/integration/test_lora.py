"""Adapters with the real DeepSpeed and the real vLLM."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from grpo_cli.choices import DType
from grpo_cli.config.model import LoraConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.checkpoint import Checkpoints
from grpo_cli.training.export import model_folder
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.training.weight_sync import sync_weights
from grpo_cli.types import Problem, Prompt, Request, Sampling

pytestmark = pytest.mark.usefixtures("ranks")
PROMPT = (23, 15, 16, 12, 6)
SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=48, stop=())


@pytest.fixture(autouse=True)
def adapters(config) -> LoraConfig:
    config.model.lora = LoraConfig(rank=4, alpha=8.0)
    config.optimizer.eps = 1e-3  # otherwise Adam's first step is the sign of the gradient, which magnifies rounding
    return config.model.lora


def sequences(seed: int = 0) -> list[TrainingSequence]:
    """Random responses of different lengths with advantages of both signs and the weights of `sequence_mean`."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, 40) for _ in range(12)]
    return [
        TrainingSequence(
            PROMPT,
            tuple(draw.randrange(2, 180) for _ in range(length)),
            (-1.0,) * length,
            advantage=draw.choice([-1.5, -0.5, 0.5, 2.0]),
            weight=1 / (12 * length),
        )
        for length in lengths
    ]


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.named_weights()}


def base_weights(model) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32).state_dict()


def assert_close(one: dict, other: dict, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def largest_difference(policy: Policy, engine) -> float:
    """The largest difference between the sampler's and the trainer's log-probabilities of the same tokens."""
    completions = dict(engine.generate([Request(PROMPT, seed) for seed in range(16)], SAMPLING))
    drawn = [TrainingSequence(PROMPT, c.token_ids, c.logprobs, advantage=1.0, weight=1.0) for c in completions.values()]
    return policy.update([drawn]).compute()["sampler/logprob_diff_max"]


def test_an_update_changes_only_the_adapters_and_they_merge_as_computed_by_hand(model, config):
    policy = rl_policy(model, config)
    base = base_weights(model)
    assert_close(weights(policy), base, 0)
    policy.update([sequences()])
    states = policy._engine.network.model.state_dict()
    by_hand = dict(base)
    for name, weight in base.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in states:
            assert torch.equal(states[f"{layer}.base_layer.weight"], weight)
            product = states[f"{layer}.lora_B.default.weight"] @ states[f"{layer}.lora_A.default.weight"]
            by_hand[name] = weight + 8.0 / 4 * product
    merged = weights(policy)
    assert_close(merged, by_hand, 1e-6)
    moved = {name.split(".")[-2] for name in base if (merged[name] - base[name]).abs().max() > 1e-5}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_zero_stage_takes_the_same_steps(stage, beta, model, config):
    config.algorithm.beta = beta
    config.cluster.gradient_checkpointing = True
    ends = []
    for config.cluster.zero_stage in (0, stage):
        policy = rl_policy(model, config)
        for seed in range(3):
            policy.update([sequences(seed)])
        ends.append(weights(policy))
    assert_close(*ends, 1e-6)


def test_the_reference_is_the_base_model_without_extra_memory(model, config):
    config.algorithm.beta = 0.04
    adapted = rl_policy(model, config)
    assert adapted._reference is None
    first, second = (adapted.update([sequences()]).compute()["policy/kl_ref"] for _ in range(2))
    assert first == 0
    assert second > 1e-4
    config.model.lora = LoraConfig()
    base = rl_policy(model, config)
    microbatches = base._packed(sequences())
    ours, theirs = adapted._reference_logprobs(microbatches), base._reference_logprobs(microbatches)
    for sequence in theirs:
        torch.testing.assert_close(ours[sequence], theirs[sequence], rtol=0, atol=1e-6)


@pytest.mark.parametrize("stage", [0, 3])
def test_after_a_sync_sampler_and_trainer_agree_and_without_one_they_do_not(stage, rollout_engine, model, config):
    config.rollout.temperature = SAMPLING.temperature
    config.cluster.zero_stage = stage
    config.optimizer.lr = 1e-2
    config.optimizer.eps = 1e-8
    policy = rl_policy(model, config)
    sync_weights(policy, rollout_engine)
    assert largest_difference(policy, rollout_engine) < 1e-4  # after the policy has changed
    assert largest_difference(policy, rollout_engine) > 1e-2
    sync_weights(policy, rollout_engine)
    assert largest_difference(policy, rollout_engine) < 1e-4
    sync_weights(rl_policy(model, config), rollout_engine)  # restore the shared engine


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_checkpoint_has_the_adapters_and_resuming_equals_uninterrupted_training(stage, model, config, tmp_path):
    config.cluster.zero_stage = stage
    config.optimizer.warmup_steps = 3
    policy = rl_policy(model, config)
    policy.update([sequences(1)])
    policy.save(tmp_path / "checkpoint")
    num_bytes = sum(file.stat().st_size for file in (tmp_path / "checkpoint").iterdir())
    assert num_bytes < sum(weight.nbytes for weight in base_weights(model).values())
    policy.update([sequences(2)])
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "checkpoint")
    resumed.update([sequences(2)])
    assert_close(weights(resumed), weights(policy), 0)
    assert resumed.lr == policy.lr


def test_a_checkpoint_of_a_run_without_adapters_is_rejected(model, config, tmp_path):
    adapters, config.model.lora = config.model.lora, LoraConfig()
    config.cluster.zero_stage = 2
    rl_policy(model, config).save(tmp_path / "checkpoint")
    config.model.lora = adapters
    with pytest.raises(CheckpointError, match=r"model\.lora\.rank=0, and this run has model\.lora\.rank=4"):
        rl_policy(model, config).load(tmp_path / "checkpoint")


@pytest.mark.parametrize(("stage", "dtype"), [(0, DType.fp32), (2, DType.bf16), (3, DType.fp32)])
def test_a_checkpoint_exports_the_merged_model(stage, dtype, model, config, tmp_path):
    config.cluster.zero_stage, config.cluster.dtype = stage, dtype
    config.run.dir, config.data.name = str(tmp_path), "unused"
    policy = rl_policy(model, config)
    policy.update([sequences()])
    sampler = EpochSampler([Prompt(Problem("id", "", ""), "", PROMPT)], seed=0)
    Checkpoints(config, "train", print).maybe_save(1, policy, sampler, {}, must=True)
    exported = AutoModelForCausalLM.from_pretrained(model_folder(tmp_path)).state_dict()
    assert_close(exported, weights(policy), 0)
