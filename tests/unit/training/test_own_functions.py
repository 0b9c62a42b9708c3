"""Functions of the user in the objective. B responses, T tokens, P prompts, G completions a prompt."""

import math

import pytest
import torch
from torch import tensor

from grpo_cli.choices import DType
from grpo_cli.config.algorithm import AlgorithmConfig, FunctionsConfig
from grpo_cli.errors import ConfigError
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training import own_functions
from grpo_cli.training.advantages import rollout_advantages
from grpo_cli.training.batch import TrainingSequence, make_microbatches, make_minibatches
from grpo_cli.training.function_checks import check_functions
from grpo_cli.training.objective import microbatch_loss
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

MINE = """
import torch

def clip(logprobs_BT, old_logprobs_BT, advantages_BT, epsilon=0.2):
    ratio_BT = (logprobs_BT - old_logprobs_BT).exp()
    return torch.minimum(ratio_BT * advantages_BT, ratio_BT.clamp(1 - epsilon, 1 + epsilon) * advantages_BT)

def centred(rewards_PG, terms_PG, lengths_PG):
    return terms_PG["accuracy"] - terms_PG["accuracy"].mean() + 0 * rewards_PG + 10.0 * lengths_PG

def by_token(mask_BT, advantages_BT, sampler_logprobs_BT):
    return mask_BT * advantages_BT * sampler_logprobs_BT.exp()

def by_response(lengths_B, max_new_tokens):
    return 1 / (lengths_B.sum() * max_new_tokens)  * torch.ones(len(lengths_B))

def short(logprobs_BT): return logprobs_BT[:, :1]
def constant(logprobs_BT, advantages_BT): return advantages_BT
def detached(logprobs_BT, old_logprobs_BT, advantages_BT):
    return ((logprobs_BT - old_logprobs_BT) * advantages_BT).relu().square()
def of_batch(logprobs_BT, advantages_BT): return logprobs_BT * advantages_BT / logprobs_BT.shape[0]
def without_advantage(logprobs_BT, advantages_BT): return logprobs_BT * advantages_BT - logprobs_BT.square()
def infinite(logprobs_BT, advantages_BT): return advantages_BT / logprobs_BT
def steep(logprobs_BT, old_logprobs_BT, advantages_BT):
    return (logprobs_BT - old_logprobs_BT).abs().sqrt() * advantages_BT
def failing(logprobs_BT): return logprobs_BT.token
def needs_entropy(logprobs_BT, entropy_BT): return logprobs_BT
def flat(rewards_PG): return rewards_PG.flatten()
def undefined(rewards_PG): return rewards_PG / rewards_PG.std(1, keepdim=True)
def number(mask_BT): return 0.5
"""


@pytest.fixture
def mine(tmp_path):
    """Returns the setting of a function in the user's file."""
    (tmp_path / "mine.py").write_text(MINE)
    return lambda name: f"{tmp_path}/mine.py:{name}"


def algorithm(**functions: str) -> AlgorithmConfig:
    return AlgorithmConfig(functions=FunctionsConfig(**functions))


def loss_and_gradient(settings: AlgorithmConfig) -> tuple[float, list[list[float]]]:
    sequences = [
        TrainingSequence((1,), (2, 3), (-0.5, -0.7), advantage=1.5, weight=0.25),
        TrainingSequence((1, 2), (4,), (-0.9,), advantage=(-0.5,), weight=(0.5,)),
    ]
    (microbatch,) = make_microbatches(sequences, 100, torch.device("cpu"))
    old_BT = tensor([[-0.5, -0.7], [-0.9, math.nan]])
    logprobs_BT = tensor([[-0.1, -0.8], [-1.5, math.nan]]).requires_grad_()
    loss, _ = microbatch_loss(logprobs_BT, old_BT, None, microbatch, settings, DType.fp32)
    loss.backward()
    return loss.item(), logprobs_BT.grad.tolist()


def test_a_clip_of_the_user_is_the_built_in_one_bit_for_bit(mine):
    assert loss_and_gradient(algorithm(surrogate=mine("clip"))) == loss_and_gradient(AlgorithmConfig())


def rollout() -> Rollout:
    def group(*rewards: float) -> ScoredGroup:
        return ScoredGroup(
            Prompt(Problem("id", "", ""), "", (1,)),
            tuple(Completion((0,) * (i + 1), (math.log(0.5),) * (i + 1), "", False) for i in range(len(rewards))),
            tuple(Score(2 * r, {"accuracy": r}, Verdict.wrong, None) for r in rewards),
        )

    return Rollout((group(1.0, 0.0), group(0.0, 0.0)), (0, 1), (), 0.0, 0.0)


@pytest.mark.usefixtures("one_rank")
def test_advantages_of_the_user_come_from_the_terms_and_lengths_of_the_whole_rollout(mine):
    selected_PG = torch.ones(2, 2, dtype=torch.bool)
    advantages = rollout_advantages(rollout(), selected_PG, None, algorithm(advantage=mine("centred")))
    # the mean accuracy is 1/4; lengths 1 and 2 add 10 and 20
    assert [[a.item() for a in group] for group in advantages] == [[10.75, 19.75], [9.75, 19.75]]


@pytest.mark.usefixtures("one_rank")
def test_weights_of_the_user_are_for_tokens_or_for_responses(mine):
    advantages = [[tensor(1.0), tensor(-2.0)], [tensor(3.0), tensor([4.0, 5.0])]]
    selected_PG = tensor([[True, True], [False, True]])
    (sequences,) = make_minibatches(rollout(), advantages, selected_PG, algorithm(weighting=mine("by_token")), 4)
    assert [s.weight for s in sequences] == [(0.5,), (-1.0, -1.0), 0.0, (2.0, 2.5)]
    (sequences,) = make_minibatches(rollout(), advantages, selected_PG, algorithm(weighting=mine("by_response")), 4)
    assert [s.weight for s in sequences] == pytest.approx([1 / 24, 1 / 24, 0.0, 1 / 24])


OTHERS_RESPONSES = ([(-1.0, -1.0, -1.0)], [(9.0, 9.0, 9.0)], [True])
OTHERS_GROUPS = (torch.zeros(1, 2), [[({"accuracy": 1.0}, True, 1), ({"accuracy": 0.0}, False, 5)]])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_function_gets_the_responses_of_all_ranks_and_each_rank_its_own_results(mine, monkeypatch, rank):
    def other_rank_has(values):
        monkeypatch.setattr(own_functions, "rank", lambda: rank)
        monkeypatch.setattr(own_functions, "gather", lambda mine: [mine, values] if rank == 0 else [values, mine])

    other_rank_has(OTHERS_RESPONSES)
    mine_B = [(math.log(0.5),), (math.log(0.5),) * 2], [(1.0,), (-2.0, 4.0)], [True, True]
    assert own_functions.own_token_weights(mine("by_token"), *mine_B, 4) == [(0.5,), (-1.0, 2.0)]
    of_responses = own_functions.own_token_weights(mine("by_response"), *mine_B, 4)
    assert of_responses == pytest.approx([1 / 24] * 2)  # 3 tokens here and 3 there, times 4

    other_rank_has(OTHERS_GROUPS)
    advantages_PG = own_functions.own_advantages(mine("centred"), torch.zeros(2, 2), rollout().groups)
    # the mean accuracy of the six responses is 1/3
    expected = tensor([[1.0, 0.0], [0.0, 0.0]]) - 1 / 3 + tensor([10.0, 20.0])
    torch.testing.assert_close(advantages_PG, expected.double())


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("surrogate", "short", r"returned shape \(3, 1\). Return a tensor of shape \(B, T\), here \(3, 3\)"),
        ("surrogate", "constant", "its terms have no gradient"),
        (
            "surrogate",
            "detached",
            "a response with the advantage 1.5 has no gradient although the policy is the one that sampled",
        ),
        ("surrogate", "of_batch", "the gradient changes if the responses are split into micro-batches"),
        ("surrogate", "without_advantage", "a response whose advantage is 0 has a gradient"),
        ("surrogate", "infinite", "returned -?(nan|inf).*Padding is 0"),
        ("surrogate", "steep", "its gradient is not finite"),
        ("surrogate", "failing", r"fails on a tiny batch:[\s\S]*return logprobs_BT"),
        (
            "surrogate",
            "needs_entropy",
            "there is no value entropy_BT for its parameters. Use logprobs_BT, old_logprobs_BT",
        ),
        ("surrogate", "absent", "cannot be imported .*Write my_objective.py:my_surrogate for a file"),
        ("advantage", "flat", r"returned shape \(12,\). Return a tensor of shape \(P, G\), here \(3, 4\)"),
        ("advantage", "undefined", "returned (nan|inf)"),
        (
            "weighting",
            "number",
            r"returned float. Return a tensor of shape \(B,\), here \(3,\) or \(B, T\), here \(3, 3\)",
        ),
    ],
)
def test_a_function_that_cannot_work_is_reported_with_its_setting(mine, part, name, message):
    with pytest.raises(ConfigError, match=rf"algorithm\.functions\.{part}=.*{name}: {message}"):
        check_functions(algorithm(**{part: mine(name)}))


def test_good_functions_pass_the_checks(mine):
    check_functions(algorithm())
    check_functions(algorithm(surrogate=mine("clip"), advantage=mine("centred"), weighting=mine("by_token")))
