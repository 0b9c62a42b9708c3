"""The policy with the real DeepSpeed: an update depends on what it should, and on nothing else."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from grpo_cli.choices import DType, KLEstimator, SamplerCorrection, Schedule
from grpo_cli.config.algorithm import KLConfig, ReferenceConfig
from grpo_cli.config.model import LoraConfig
from grpo_cli.errors import TrainingError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.policies import load_teacher, rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.types import Completion, Problem, Prompt, ScoredGroup

pytestmark = pytest.mark.usefixtures("ranks")
PROMPT = (23, 15, 16, 12, 6)


def sequences(seed: int = 0, count: int = 12) -> list[TrainingSequence]:
    """Random responses of different lengths with advantages of both signs and the weights of `sequence_mean`."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, 40) for _ in range(count)]
    return [
        TrainingSequence(
            PROMPT,
            tuple(draw.randrange(2, 180) for _ in range(length)),
            (-1.0,) * length,
            advantage=draw.choice([-1.5, -0.5, 0.5, 2.0]),
            weight=1 / (count * length),
        )
        for length in lengths
    ]


@torch.no_grad()
def response_logprobs(folder: Path, sequence: TrainingSequence) -> torch.Tensor:
    """The log-probabilities of the response, by transformers alone."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[*sequence.prompt_ids, *sequence.response_ids]])
    logprobs = network(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logprobs[len(sequence.prompt_ids) - 1 :]


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.named_weights()}


def assert_close(one: dict, other: dict, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def updated(model, config, minibatches) -> dict[str, torch.Tensor]:
    policy = rl_policy(model, config)
    policy.update(minibatches)
    return weights(policy)


@pytest.fixture
def whole_batch(model, config):
    config.optimizer.eps = 1e-3  # otherwise Adam's first step is the sign of the gradient, which magnifies rounding
    return updated(model, config, [sequences()])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.integers(1, 400), order=st.randoms(use_true_random=False))
def test_weights_do_not_depend_on_the_split_into_microbatches(tokens, order, model, config, whole_batch):
    config.cluster.tokens_per_microbatch = tokens
    shuffled = sequences()
    order.shuffle(shuffled)
    assert_close(updated(model, config, [shuffled]), whole_batch, 1e-6)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_zero_stage_takes_the_same_step(stage, model, config, whole_batch):
    config.cluster.zero_stage = stage
    config.cluster.tokens_per_microbatch = 100
    assert_close(updated(model, config, [sequences()]), whole_batch, 1e-6)


def test_gradient_checkpointing_takes_the_same_step(model, config, whole_batch):
    config.cluster.gradient_checkpointing = True
    assert_close(updated(model, config, [sequences()]), whole_batch, 1e-6)


def test_a_sequence_without_advantage_changes_nothing(model, config):
    config.optimizer.eps = 1e-3
    with_advantage = sequences()
    silent = [TrainingSequence(PROMPT, (40, 41, 42), (-1.0,) * 3, advantage=0.0, weight=1 / 36) for _ in range(3)]
    assert_close(updated(model, config, [with_advantage + silent]), updated(model, config, [with_advantage]), 0)


def test_equal_token_advantages_take_the_same_step_as_one_response_advantage(model, config, whole_batch):
    of_tokens = [replace(s, advantage=(s.advantage,) * len(s.response_ids)) for s in sequences()]
    assert_close(updated(model, config, [of_tokens]), whole_batch, 0)
    of_tokens[0] = replace(of_tokens[0], advantage=(*of_tokens[0].advantage[:-1], 9.0))
    other = updated(model, config, [of_tokens])
    assert any(not torch.equal(other[name], whole_batch[name]) for name in other)


def test_the_entropy_bonus_raises_the_entropy_also_of_responses_without_advantage(model, config):
    config.algorithm.entropy_bonus.weight = 1.0
    config.optimizer.lr = 1e-3
    silent = [replace(s, advantage=0.0) for s in sequences()]
    policy = rl_policy(model, config)

    def entropy() -> float:
        return sum(entropy_N.sum().item() for _, _, entropy_N in policy.forwarded(silent, with_entropy=True))

    before = entropy()
    tally = policy.update([silent])
    assert entropy() > before + 1
    assert tally.compute()["policy/entropy_bonus"] == 1.0


def test_clip_shares_count_all_responses(model, config):
    config.optimizer.lr = 3e-2
    config.algorithm.num_epochs = 3
    config.algorithm.epsilon = 0.05
    with_advantage = sequences()
    num_tokens = sum(len(s.response_ids) for s in with_advantage)
    silent = [TrainingSequence(PROMPT, (40,) * num_tokens, (-1.0,) * num_tokens, advantage=0.0, weight=1e-3)]
    without, together = (rl_policy(model, config).update([with_advantage + added]).compute() for added in ([], silent))
    for name in ("policy/clip_low", "policy/clip_high"):
        assert together[name] == pytest.approx(without[name] / 2)
        assert without[name] > 0


def test_bf16_corrects_for_the_sampler_by_default(model, config):
    # Each token is much likelier for the trainer than for this sampler, so each ratio is truncated to the cap, 2.
    config.cluster.dtype, config.cluster.zero_stage = DType.bf16, 1
    far = [replace(s, sampler_logprobs=(-1000.0,) * len(s.response_ids), advantage=1.0) for s in sequences()]
    norms = {}
    for method in (SamplerCorrection.auto, SamplerCorrection.none, SamplerCorrection.token_mask):
        config.algorithm.sampler_correction.method = method
        norms[method] = rl_policy(model, config).update([far]).compute()["policy/grad_norm"]
    assert norms[SamplerCorrection.auto] == pytest.approx(2 * norms[SamplerCorrection.none], rel=0.02)
    assert norms[SamplerCorrection.token_mask] == 0


def test_a_minibatch_without_advantages_still_takes_a_step(model, config):
    config.optimizer.schedule = Schedule.cosine
    config.steps = 10
    policy = rl_policy(model, config)
    before = weights(policy)
    silent = [TrainingSequence(PROMPT, (40, 41), (-1.0,) * 2, advantage=0.0, weight=0.25)] * 2
    tally = policy.update([silent]).compute()
    assert_close(weights(policy), before, 0)
    assert tally["policy/grad_norm"] == 0
    assert policy.lr == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 10)))


def test_the_logged_learning_rate_is_the_one_used_in_the_step(model, config):
    config.optimizer.warmup_steps = 4
    policy = rl_policy(model, config)
    seen = [policy.update([sequences()]).compute()["policy/lr"] for _ in range(5)]
    assert seen == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


def test_epsilon_matters_if_there_are_several_minibatches(model, config):
    config.optimizer.lr = 3e-2
    config.algorithm.num_minibatches = 2
    ends = {}
    for epsilon in (0.05, 0.5):
        config.algorithm.epsilon = epsilon
        config.algorithm.num_epochs = 3
        policy = rl_policy(model, config)
        tally = policy.update([sequences(1), sequences(2)]).compute()
        ends[epsilon] = weights(policy)
        assert tally["policy/clip_high"] + tally["policy/clip_low"] > 0
    assert any(not torch.equal(ends[0.05][name], ends[0.5][name]) for name in ends[0.05])


def test_kl_to_the_reference_starts_at_zero_and_grows(model, config):
    config.algorithm.beta = 0.04
    policy = rl_policy(model, config)
    first, second = (policy.update([sequences()]).compute()["policy/kl_ref"] for _ in range(2))
    assert first == pytest.approx(0, abs=1e-6)
    assert second > 1e-3


def test_a_refreshed_reference_is_the_policy_at_that_step(model, config, tmp_path):
    config.algorithm.beta = 0.04
    config.algorithm.reference.refresh_steps = 2
    config.cluster.offload_reference = True
    policy = rl_policy(model, config)
    kl = [policy.update([sequences()]).compute()["policy/kl_ref"] for _ in range(3)]
    assert kl[1] > 1e-3
    assert kl[2] == pytest.approx(0, abs=1e-6)
    policy.save(tmp_path / "checkpoint")
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "checkpoint")
    assert resumed.update([sequences()]).compute() == policy.update([sequences()]).compute()
    config.algorithm.reference = ReferenceConfig(path="builtin:make_zero_half")
    with_teacher = rl_policy(model, config, load_teacher(model, config))
    with_teacher.load(tmp_path / "checkpoint")  # not the saved reference, which has another shape
    assert with_teacher.update([sequences()]).compute()["policy/kl_teacher"] > 0.1


def test_the_kl_for_the_reward_is_per_token(model, config):
    config.algorithm.beta = 0.04
    policy = rl_policy(model, config)
    prompt = Prompt(Problem("id", "", ""), "", PROMPT)
    responses = tuple(Completion(s.response_ids, s.sampler_logprobs, "", False) for s in sequences(count=4))
    groups = [ScoredGroup(prompt, responses[:2], ()), ScoredGroup(prompt, responses[2:], ())]
    assert all(kl_T.abs().max() < 1e-5 for group in policy.token_kl(groups) for kl_T in group)
    tally = policy.update([sequences()])
    kl = policy.token_kl(groups)
    assert [[len(kl_T) for kl_T in group] for group in kl] == [
        [len(completion.token_ids) for completion in group.completions] for group in groups
    ]
    assert all(kl_T.sum() > 0 for group in kl for kl_T in group)
    assert tally.compute()["policy/kl_ref"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [0, 4], ids=["all weights", "adapters"])
def test_the_reference_can_be_a_teacher_of_another_size(rank, model, config, tmp_path):
    config.algorithm.beta = 1.0
    config.algorithm.kl = KLConfig(KLEstimator.k1)
    config.algorithm.reference.path = "builtin:make_zero_half"
    config.model.lora = LoraConfig(rank=rank)
    teacher = load_teacher(model, config)
    policy = rl_policy(model, config, teacher)
    batch = sequences(count=4)
    prompt = Prompt(Problem("id", "", ""), "", PROMPT)
    (kl,) = policy.token_kl(
        [ScoredGroup(prompt, tuple(Completion(s.response_ids, s.sampler_logprobs, "", False) for s in batch), ())]
    )
    for sequence, kl_T in zip(batch, kl, strict=True):
        expected_T = response_logprobs(model.folder, sequence) - response_logprobs(teacher.folder, sequence)
        torch.testing.assert_close(kl_T, expected_T, rtol=0, atol=1e-4)
    tally = policy.update([batch]).compute()
    assert tally["policy/kl_teacher"] > 0.1
    assert "policy/kl_ref" not in tally
    policy.save(tmp_path / "checkpoint")
    resumed = rl_policy(model, config, teacher)
    resumed.load(tmp_path / "checkpoint")
    assert resumed.update([batch]).compute() == policy.update([batch]).compute()
    assert_close(weights(resumed), weights(policy), 0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_is_skipped_and_the_third_in_a_row_stops_the_run(stage, model, config):
    config.cluster.zero_stage = stage
    policy = rl_policy(model, config)
    policy.update([sequences()])
    before = weights(policy)
    broken = [replace(s, advantage=math.nan) for s in sequences()]
    for _ in range(2):
        assert policy.update([broken]).compute()["policy/skipped_steps"] == 1
    assert_close(weights(policy), before, 0)
    assert policy.update([sequences()]).compute()["policy/skipped_steps"] == 0  # and the count starts again
    policy.update([broken])
    policy.update([broken])
    with pytest.raises(TrainingError, match="not finite in 3 optimizer steps"):
        policy.update([broken])


def test_a_small_learning_rate_changes_weights_in_bf16(model, config):
    config.cluster.dtype = DType.bf16
    config.cluster.zero_stage = 1
    config.optimizer.lr = 1e-6
    policy = rl_policy(model, config)
    before = weights(policy)
    for _ in range(50):
        policy.update([sequences(count=4)])
    after = weights(policy)
    # Half the spacing of bf16 above 0.01 is at least 3e-5: without fp32 master weights, none of these would change.
    large = {name: weight.abs() > 0.01 for name, weight in before.items()}
    moved = sum((after[name] != before[name])[large[name]].sum() for name in before)
    assert moved > 0.03 * sum(mask.sum() for mask in large.values())


@pytest.mark.parametrize("stage", [2, 3])
def test_gradients_of_many_microbatches_are_summed_in_fp32(stage, model, config):
    # In bf16 a sum of equal parts stops growing at 256 parts: the next one is rounded away.
    config.cluster.dtype, config.cluster.zero_stage, config.cluster.tokens_per_microbatch = DType.bf16, stage, 8
    sequence = TrainingSequence(PROMPT, (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=0.25)
    one, many = (
        rl_policy(model, config).update([[replace(sequence) for _ in range(count)]]).compute()["policy/grad_norm"]
        for count in (1, 300)
    )
    assert many == pytest.approx(300 * one, rel=0.01)


@pytest.mark.parametrize("stage", [0, 2])
def test_training_resumed_from_a_checkpoint_equals_uninterrupted_training(stage, model, config, tmp_path):
    config.cluster.zero_stage = stage
    config.optimizer.warmup_steps = 3
    policy = rl_policy(model, config)
    policy.update([sequences(1)])
    policy.save(tmp_path / "checkpoint")
    policy.update([sequences(2)])
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "checkpoint")
    resumed.update([sequences(2)])
    assert_close(weights(resumed), weights(policy), 0)
    assert resumed.lr == policy.lr


@pytest.mark.parametrize(
    ("offload", "stage"), [("offload_during_rollout", 2), ("offload_optimizer", 2), ("offload_optimizer", 3)]
)
def test_moving_states_to_the_cpu_changes_no_weight(offload, stage, model, config, tmp_path):
    config.cluster.zero_stage = stage
    config.optimizer.eps = 1e-3  # otherwise Adam magnifies the rounding of another kernel
    stayed = rl_policy(model, config)
    for seed in (1, 2):
        stayed.update([sequences(seed)])
    setattr(config.cluster, offload, True)
    moved = rl_policy(model, config)
    moved.update([sequences(1)])
    moved.offload()
    moved.save(tmp_path / "checkpoint")
    moved.update([sequences(2)])
    moved.offload()
    assert_close(weights(moved), weights(stayed), 1e-6)
