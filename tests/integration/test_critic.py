"""The critic with the real DeepSpeed: its values, its update, and its part of a checkpoint."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from grpo_cli.config.critic import CriticConfig
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.training.critic import Critic, PolicyAndCritic, ValuedSequence, rl_critic
from grpo_cli.training.policies import rl_policy
from grpo_cli.types import Completion, Problem, Prompt, ScoredGroup

pytestmark = pytest.mark.usefixtures("ranks")
PROMPT = (23, 15, 16, 12, 6)


@pytest.fixture
def config(config):
    config.critic = CriticConfig(lr=1e-3, value_clip=0.2)
    config.algorithm.num_epochs = 2
    config.optimizer.eps = 1e-3  # otherwise Adam's first step is the sign of the gradient, which magnifies rounding
    return config


def sequences(seed: int = 0, count: int = 10) -> list[ValuedSequence]:
    """Random responses of different lengths, with returns between 0 and 1 and values of an earlier critic."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        length = draw.randint(1, 40)
        response, values, returns = (
            tuple(of_token() for _ in range(length))
            for of_token in (lambda: draw.randrange(2, 180), lambda: draw.gauss(0, 0.1), draw.random)
        )
        made.append(ValuedSequence(PROMPT, response, values=values, returns=returns))
    return made


def group(made: list[ValuedSequence]) -> ScoredGroup:
    completions = tuple(Completion(s.response_ids, (-1.0,) * len(s.response_ids), "", False) for s in made)
    return ScoredGroup(Prompt(Problem("id", "", ""), "", PROMPT), completions, ())


def values(critic: Critic) -> torch.Tensor:
    """The values of some other responses."""
    (of_group,) = critic.values([group(sequences(seed=9))])
    return torch.cat(of_group)


def updated(model, config, *seeds: int) -> torch.Tensor:
    critic = rl_critic(model, config)
    for seed in seeds or (0, 1):
        critic.update([sequences(seed)])
    return values(critic)


def test_values_start_at_zero_and_learn_the_returns(model, config):
    config.critic.value_clip = None
    critic = rl_critic(model, config)
    assert not values(critic).any()
    made = [replace(s, returns=(0.5,) * len(s.returns)) for s in sequences()]
    losses = [critic.update([made]).compute()["critic/loss"] for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]
    assert values(critic).mean().item() == pytest.approx(0.5, abs=0.2)


def test_a_value_depends_on_the_tokens_before_it_and_on_no_later_one(model, config):
    critic = rl_critic(model, config)
    critic.update([sequences()])
    ((one, longer, other),) = critic.values(
        [
            group(
                [
                    replace(s, response_ids=ids)
                    for s, ids in zip(sequences(count=3), [(40, 41, 42), (40, 41, 42, 43), (40, 99, 42)], strict=True)
                ]
            )
        ]
    )
    torch.testing.assert_close(longer[:3], one, rtol=0, atol=1e-6)
    torch.testing.assert_close(other[:2], one[:2], rtol=0, atol=1e-6)
    assert abs(other[2] - one[2]) > 1e-5


def test_the_split_into_microbatches_changes_nothing(model, config):
    whole = updated(model, config)
    for tokens in (1, 100):
        config.cluster.tokens_per_microbatch = tokens
        torch.testing.assert_close(updated(model, config), whole, rtol=0, atol=1e-6)


def test_the_loss_is_the_mean_over_the_tokens_of_a_minibatch(model, config):
    # The first values are 0, and so are those of the earlier critic: the clip has no effect in the first step.
    config.algorithm.num_epochs = 1
    made = [replace(s, values=(0.0,) * len(s.values)) for s in sequences()]
    returns = torch.tensor([value for s in made for value in s.returns])
    tally = rl_critic(model, config).update([made]).compute()
    assert tally["critic/loss"] == pytest.approx((returns.square().mean() / 2).item())
    assert (tally["critic/value"], tally["critic/return"]) == pytest.approx((0, returns.mean().item()))
    assert tally["critic/explained_variance"] == pytest.approx(0)
    assert (tally["critic/lr"], tally["critic/clipped"]) == (1e-3, 0)


def test_the_learning_rate_is_ten_times_the_policys_if_it_is_not_set(model, config):
    config.critic.lr, config.optimizer.lr = None, 3e-5
    assert rl_critic(model, config).update([sequences()]).compute()["critic/lr"] == pytest.approx(3e-4)


def test_a_rollout_without_a_selected_response_takes_a_step_without_a_gradient(model, config):
    config.cluster.zero_stage = 2
    critic = rl_critic(model, config)
    assert critic.update([[]]).compute()["critic/grad_norm"] == 0
    assert not values(critic).any()


@pytest.mark.parametrize(("stage", "moved"), [(0, None), (2, "offload_during_rollout"), (3, "offload_optimizer")])
def test_a_resumed_critic_equals_an_uninterrupted_one(stage, moved, model, config, tmp_path):
    config.cluster.zero_stage = stage
    stayed = updated(model, config, 0, 1)
    if moved:
        setattr(config.cluster, moved, True)
    learner = PolicyAndCritic(rl_policy(model, config), rl_critic(model, config))
    learner.critic.update([sequences(0)])
    learner.save(tmp_path / "step" / "deepspeed")
    resumed = PolicyAndCritic(rl_policy(model, config), rl_critic(model, config))
    assert not resumed.load(tmp_path / "step" / "deepspeed")
    for critic in (learner.critic, resumed.critic):
        critic.update([sequences(1)])
    assert torch.equal(values(resumed.critic), values(learner.critic))
    torch.testing.assert_close(values(learner.critic), stayed, rtol=0, atol=1e-6)  # wherever its states were


def test_a_checkpoint_without_a_critic_is_rejected(model, config, tmp_path):
    policy = rl_policy(model, config)
    policy.save(tmp_path / "step" / "deepspeed")
    with pytest.raises(CheckpointError, match="without a critic"):
        PolicyAndCritic(policy, rl_critic(model, config)).load(tmp_path / "step" / "deepspeed")


def test_a_critic_can_start_from_another_model_with_the_same_tokenizer(model, config, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(model.folder)
    network.model.embed_tokens.weight.data *= 1.5
    network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    from_base = updated(model, config, 0)
    config.critic.path = str(tmp_path)
    assert (updated(model, config, 0) - from_base).abs().max() > 1e-3
    model.tokenizer.add_tokens(["<other>"])  # the fixture's own copy
    with pytest.raises(ConfigError, match=r"critic\.path=.*tokens differ"):
        rl_critic(model, config)
