"""The functions in examples/objectives against their papers: numbers worked by hand, and gradients written out.

P prompts, G completions a prompt, B responses, T tokens.
"""

import importlib.util
import itertools
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, tensor

from grpo_cli.algorithm.loss import policy_loss
from grpo_cli.config.algorithm import AlgorithmConfig, FunctionsConfig
from grpo_cli.training.function_checks import check_functions

FOLDER = Path(__file__).parents[3] / "examples" / "objectives"
SURROGATES, ADVANTAGES = ("sapo", "gmpo"), ("maxrl", "gdpo", "kimi_length", "gfpo")
WEIGHTINGS = ("clip_cov",)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def term_and_gradient(surrogate, ratios: list[float], advantage: float) -> tuple[Tensor, Tensor]:
    """The (T,) terms of one response, and the gradient of their sum with respect to the log-probabilities."""
    logprobs_BT = tensor([ratios]).double().log().requires_grad_()
    given = {"logprobs_BT": logprobs_BT, "old_logprobs_BT": torch.zeros(1, len(ratios)).double()}
    given["advantages_BT"] = torch.full((1, len(ratios)), advantage).double()
    if "mask_BT" in surrogate.__code__.co_varnames:
        given["mask_BT"] = torch.ones(1, len(ratios), dtype=torch.bool)
    terms_BT = surrogate(**given)
    (gradient_BT,) = torch.autograd.grad(terms_BT.sum(), logprobs_BT)
    return terms_BT[0].detach(), gradient_BT[0]


def test_every_example_is_tested_and_passes_the_checks_at_the_start():
    parts = {"surrogate": SURROGATES, "advantage": ADVANTAGES, "weighting": WEIGHTINGS}
    assert {path.stem for path in FOLDER.glob("*.py")} == {name for names in parts.values() for name in names}
    for part, names in parts.items():
        for name in names:
            functions = FunctionsConfig(**{part: f"{FOLDER}/{name}.py:{name}"})
            check_functions(AlgorithmConfig(functions=functions, beta=0.1))


def test_sapo_at_a_ratio_of_1_is_twice_the_advantage_divided_by_its_temperature():
    # sigmoid(0) = 1/2: the value is 2 A / tau; sigmoid' = 1/4: the gradient is A, as in the policy gradient
    terms, gradient = term_and_gradient(example("sapo").sapo, [1.0], 3.0)
    assert (terms.item(), gradient.item()) == (pytest.approx(6.0), pytest.approx(3.0))
    terms, gradient = term_and_gradient(example("sapo").sapo, [1.0], -3.0)
    assert (terms.item(), gradient.item()) == (pytest.approx(-6 / 1.05), pytest.approx(-3.0))


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_the_gradient_of_sapo_is_the_one_of_its_paper(advantage):
    # 4 s (1 - s) r A with s = sigmoid(tau (r - 1)); s (1 - s) = 1 / (4 cosh^2(tau (r - 1) / 2))
    ratios = [0.2, 0.9, 1.3, 3.0]
    _, gradient = term_and_gradient(example("sapo").sapo, ratios, advantage)
    tau = 1.0 if advantage > 0 else 1.05
    assert gradient.tolist() == pytest.approx([r * advantage / math.cosh(tau * (r - 1) / 2) ** 2 for r in ratios])


def test_gmpo_is_the_geometric_mean_of_the_ratios():
    # (1.2 * 0.8 * 1.1)^(1/3) A; nothing is clipped, so every token has the gradient of the response's term
    mean = (1.2 * 0.8 * 1.1) ** (1 / 3)
    terms, gradient = term_and_gradient(example("gmpo").gmpo, [1.2, 0.8, 1.1], 2.0)
    assert terms.tolist() == pytest.approx([2 * mean] * 3)
    assert gradient.tolist() == pytest.approx([2 * mean] * 3)


@pytest.mark.parametrize(
    ("advantage", "clipped", "has_gradient"),
    [
        (1.0, [math.exp(0.4), 0.5], [0, 1]),  # 2 is above exp(0.4) = 1.49; 0.5 is too unlikely and good: kept
        (-1.0, [2.0, math.exp(-0.4)], [1, 0]),  # 2 is too likely and bad: kept; 0.5 is below exp(-0.4) = 0.67
    ],
)
def test_gmpo_clips_each_token_on_the_side_of_its_advantage(advantage, clipped, has_gradient):
    terms, gradient = term_and_gradient(example("gmpo").gmpo, [2.0, 0.5], advantage)
    term = advantage * math.sqrt(math.prod(clipped))
    assert terms.tolist() == pytest.approx([term] * 2)
    assert gradient.tolist() == pytest.approx([term * kept for kept in has_gradient])


def test_gmpo_does_not_count_padding():
    logprobs_BT = tensor([[1.2, 0.8, 1.0]]).log()
    mask_BT = tensor([[True, True, False]])
    terms_BT = example("gmpo").gmpo(logprobs_BT, torch.zeros(1, 3), torch.ones(1, 3) * mask_BT, mask_BT)
    assert terms_BT[0, :2].tolist() == pytest.approx([math.sqrt(1.2 * 0.8)] * 2)


def test_maxrl_divides_by_the_success_rate():
    # one of four: (1 - 1/4) / (1/4) = 3 and -1; two of four: 1 and -1
    advantages = example("maxrl").maxrl(tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))
    assert advantages.tolist() == [[3, -1, -1, -1], [1, 1, -1, -1], [0] * 4, [0] * 4]


def test_the_expected_gradient_of_maxrl_is_the_truncated_series_of_the_log_success_rate():
    # log p = -sum over k of (1 - p)^k / k has the gradient sum over k >= 1 of (1 - p)^(k - 1) p'. Groups of N give the
    # first N - 1 terms: the N-th is lost with the groups that have no success, which get advantage 0.
    p, group_size = 0.3, 4
    score = {1.0: 1 - p, 0.0: -p}  # the derivative of log-probability by the logit; p' = p (1 - p)
    expected = 0.0
    for outcome in itertools.product((1.0, 0.0), repeat=group_size):
        probability = math.prod(p if reward else 1 - p for reward in outcome)
        (advantages,) = example("maxrl").maxrl(tensor([outcome]).double()).tolist()
        expected += probability * sum(a * score[r] for a, r in zip(advantages, outcome, strict=True)) / group_size
    assert expected == pytest.approx(sum((1 - p) ** (k - 1) for k in range(1, group_size)) * p * (1 - p))


def test_kimi_length_rewards_short_right_answers_and_never_wrong_ones():
    # lengths 10 to 30: 0.5 - 0/20 = 0.5, 0.5 - 10/20 = 0, 0.5 - 20/20 = -0.5; a wrong answer gets at most 0
    module = example("kimi_length")
    lengths_PG = tensor([[10.0, 20.0, 30.0, 30.0, 10.0], [7.0] * 5]).double()
    correct_PG = tensor([[True, True, True, False, False], [True, False, True, False, True]])
    values = module.length_rewards(correct_PG, lengths_PG)
    assert values.tolist() == [[0.5, 0, -0.5, -0.5, 0], [0] * 5]
    # with weight 0.2: totals 1.1, 1, 0.9, -0.1, 0; their mean is 0.58
    advantages = module.kimi_length(correct_PG.double(), correct_PG, lengths_PG)
    assert advantages[0].tolist() == pytest.approx([0.52, 0.42, 0.32, -0.68, -0.58])


def test_gfpo_learns_only_from_the_shortest_responses(monkeypatch):
    # of lengths 5, 1, 2, 3 the shortest three have rewards 0, 1, 0: mean 1/3, std sqrt(2)/3
    module = example("gfpo")
    monkeypatch.setattr(module, "KEEP", 3)
    rewards_PG, lengths_PG = tensor([[1.0, 0.0, 1.0, 0.0]]).double(), tensor([[5, 1, 2, 3]])
    low, high = -1 / math.sqrt(2), math.sqrt(2)
    assert module.gfpo(rewards_PG, lengths_PG)[0].tolist() == pytest.approx([0, low, high, low], abs=1e-5)
    # rewards per token 0.2, 0, 0.5, 0: the long right answer is kept, and the earlier of the wrong ones
    efficient = module.token_efficiency(rewards_PG, lengths_PG)
    assert efficient[0].tolist() == pytest.approx([-low, -high, -low, 0], abs=1e-5)


@pytest.mark.parametrize("name", ["kimi_length", "gfpo"])
def test_a_group_with_equal_rewards_and_lengths_is_not_trained_on(name):
    # exactly 0: the mean of six times 1.1 is not 1.1 in float64
    rewards_PG = torch.full((1, 6), 1.1, dtype=torch.float64)
    given = {"rewards_PG": rewards_PG, "lengths_PG": torch.full((1, 6), 5)}
    given |= {"correct_PG": rewards_PG > 0} if name == "kimi_length" else {}
    assert not getattr(example(name), name)(**given).any()


def test_gdpo_tells_apart_what_grpo_cannot():
    # The example of the paper: sums (0, 1) and (0, 2). In a group of two, 0 and 1 are normalised to -+1/sqrt(2), so the
    # sums are -+0.7071 and -+1.4142. Their std over the batch is sqrt((2 * 0.5 + 2 * 2) / 3) = 1.2910.
    terms_PG = {
        "accuracy": tensor([[0.0, 1.0], [0.0, 1.0]]).double(),
        "format": tensor([[0.0, 0.0], [0.0, 1.0]]).double(),
    }
    advantages_PG = example("gdpo").gdpo(terms_PG, eps=0.0)
    std = math.sqrt(5 / 3)
    expected = tensor([[-math.sqrt(0.5), math.sqrt(0.5)], [-math.sqrt(2), math.sqrt(2)]]).double() / std
    torch.testing.assert_close(advantages_PG, expected)


def test_gdpo_gives_0_if_all_rewards_are_equal_and_uses_its_weights(monkeypatch):
    module = example("gdpo")
    assert not module.gdpo({"accuracy": torch.full((2, 4), 0.1)}).any()
    monkeypatch.setitem(module.WEIGHTS, "format", 0.0)
    of_accuracy = {"accuracy": tensor([[0.0, 1.0], [1.0, 0.0]])}
    both = of_accuracy | {"format": tensor([[1.0, 0.0], [1.0, 0.0]])}
    assert torch.equal(module.gdpo(both), module.gdpo(of_accuracy))


# Two responses of two tokens. Centred log-probabilities 2, 0, 0, -2; advantages 2, 2, -2, -2; covariances 4, 0, 0, 4.
LOGPROBS_BT = tensor([[-0.1, -2.1], [-2.1, -4.1]])
ADVANTAGES_BT = tensor([[2.0, 2.0], [-2.0, -2.0]])


def clip_cov_weights(**options) -> list[list[float]]:
    mask_BT = torch.ones(2, 2, dtype=torch.bool)
    return example("clip_cov").clip_cov(mask_BT, tensor([True, True]), ADVANTAGES_BT, LOGPROBS_BT, **options).tolist()


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"share": 0.5}, [[0.0, 0.25], [0.25, 0.0]]),
        ({"share": 0.5, "high": 3.9}, [[0.25, 0.25], [0.25, 0.25]]),
        ({"share": 0.5, "low": 4.1}, [[0.25, 0.25], [0.25, 0.25]]),
    ],
)
def test_clip_cov_drops_tokens_whose_covariance_is_between_its_bounds(options, weights):
    assert clip_cov_weights(**options) == weights


def test_clip_cov_drops_a_share_of_all_tokens_but_at_least_one():
    weights = clip_cov_weights()
    assert sum(row.count(0.0) for row in weights) == 1
    assert weights == clip_cov_weights()  # the choice repeats


def test_a_token_that_clip_cov_drops_has_no_gradient_and_the_others_have_that_of_the_clip():
    logprobs_BT = LOGPROBS_BT.clone().requires_grad_()
    weights_BT = tensor(clip_cov_weights(share=0.5))
    loss, _ = policy_loss(logprobs_BT, LOGPROBS_BT, ADVANTAGES_BT, weights_BT, torch.ones(2, 2))
    loss.backward()
    assert logprobs_BT.grad.tolist() == [[0.0, -0.5], [0.5, 0.0]]


def test_clip_cov_ignores_padding_and_responses_that_are_not_selected():
    mask_BT = tensor([[True, True, False], [True, True, False], [True, False, False]])
    padded = (torch.nn.functional.pad(values, (0, 1, 0, 1), value=9.0) for values in (ADVANTAGES_BT, LOGPROBS_BT))
    weights_BT = example("clip_cov").clip_cov(mask_BT, tensor([True, True, False]), *padded, share=0.5)
    assert weights_BT.tolist() == [[0.0, 0.25, 0.0], [0.25, 0.0, 0.0], [0.0, 0.0, 0.0]]
