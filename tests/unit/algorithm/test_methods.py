"""Each method in conf/algorithm against its paper: loss and gradient, with plain loops in float64.

The objectives in tests/papers.py are written only from the papers; the code under test gets its settings from the
method's YAML and starts from the rewards. P prompts, G completions a prompt, B = P*G sequences, T tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import papers
import pytest
import torch
from omegaconf import OmegaConf
from papers import MAX_NEW_TOKENS, G, Groups, Objective, P, Response, mean

from grpo_cli.algorithm.correction import sampler_correction
from grpo_cli.algorithm.kl import kl_divergence
from grpo_cli.algorithm.loss import policy_loss
from grpo_cli.choices import DType
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.advantages import rollout_advantages, selected_responses
from grpo_cli.training.batch import make_minibatches
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

CONF = Path(__file__).parents[3] / "conf" / "algorithm"


@dataclass
class Case:
    name: str
    objective: Objective
    overrides: dict
    drift: float  # standard deviation of the log ratio, such that some tokens are clipped and some not
    dtype: DType = DType.fp32  # decides what `auto` means


CASES = [
    Case("grpo", papers.grpo, {}, 0.3),
    Case("grpo", lambda groups, _: papers.grpo(groups, _, beta=0.04), {"beta": 0.04}, 0.3),
    Case("r1_zero", lambda groups, _: papers.grpo(groups, _, beta=0.001, low=-9.0, high=11.0), {}, 3.0),
    Case("dr_grpo", papers.dr_grpo, {}, 0.3),
    Case("dapo", papers.dapo, {}, 0.3),
    Case("rloo", papers.rloo, {}, 0.3),
    Case("rloo", lambda groups, _: papers.rloo(groups, _, beta=0.05), {"beta": 0.05}, 0.3),
    Case("reinforce", papers.reinforce, {}, 0.3),
    Case(
        "reinforce",
        lambda groups, _: papers.reinforce(groups, _, baseline=True),
        {"advantage": {"baseline": "batch_mean"}},
        0.3,
    ),
    Case("reinforce_pp", papers.reinforce_pp, {}, 0.3),
    Case("reinforce_pp", lambda groups, _: papers.reinforce_pp(groups, _, beta=0.05), {"beta": 0.05}, 0.3),
    Case("ppo", papers.ppo_with_critic, {}, 0.3),
    Case(
        "ppo",
        lambda groups, _: papers.ppo_with_critic(groups, _, beta=0.05, gamma=0.9, lam=0.95),
        {"beta": 0.05, "advantage": {"gamma": 0.9, "gae_lambda": 0.95}},
        0.3,
    ),
    Case("reinforce_pp_baseline", papers.reinforce_pp_baseline, {}, 0.3),
    Case(
        "reinforce_pp_baseline",
        lambda groups, _: papers.reinforce_pp_baseline(groups, _, beta=0.05),
        {"beta": 0.05},
        0.3,
    ),
    Case("grpo", papers.lite_ppo, {"advantage": {"scale": "raw_batch_std"}, "weighting": "token_mean"}, 0.3),
    Case("grpo", papers.unbiased_kl, {"beta": 0.04, "kl": {"estimator": "k3_unbiased"}}, 0.3),
    Case("grpo", papers.truncated, {"sampler_correction": {"method": "auto", "cap": 1.1}}, 0.3, DType.bf16),
    Case("grpo", papers.icepop, {"sampler_correction": {"method": "token_mask", "floor": 0.9, "cap": 1.1}}, 0.3),
    Case("gspo", papers.gspo, {}, 2e-3),
    Case("cispo", papers.cispo, {}, 1.5),
    Case("expert_iteration", papers.expert_iteration, {}, 0.3),
    Case("on_policy_distillation", papers.on_policy_distillation, {}, 0.3),
    Case(
        "on_policy_distillation",
        lambda groups, _: papers.on_policy_distillation(groups, _, reward_weight=1.0),
        {"advantage": {"reward": "total"}},
        0.3,
    ),
]


def random_groups(seed: int, drift: float) -> Groups:
    """Responses of different lengths, rounded to float32: a mixed group, one of equal rewards, one with one success."""
    rng, critic = np.random.default_rng(seed), np.random.default_rng(seed + 100)
    rewards = [[1.1, 0.0, 0.1, 1.0], [1.1] * 4, [0.1, 0.1, 1.1, 0.1]]

    def response(reward: float) -> Response:
        length = rng.integers(1, MAX_NEW_TOKENS + 1)
        old = rng.normal(-2, 1, length).astype(np.float32)
        ref = (old + rng.normal(0, 0.3, length)).astype(np.float32)
        new = (old + rng.normal(0, drift, length)).astype(np.float32)
        sampler = (old + rng.normal(0, 0.2, length)).astype(np.float32)
        values = critic.normal(0.4, 0.3, length).astype(np.float32)
        return Response(reward, reward >= 1, *(v.astype(np.float64) for v in (sampler, old, ref, new, values)))

    return [[response(reward) for reward in group] for group in rewards]


def moved(groups: Groups, chosen: tuple[int, int, int], step: float) -> Groups:
    """The same groups with one log-probability of the trained policy changed by `step`."""
    p, g, t = chosen
    new = [[response.new.copy() for response in group] for group in groups]
    new[p][g][t] += step
    return [[replace(r, new=new[i][j]) for j, r in enumerate(group)] for i, group in enumerate(groups)]


def loss_by_hand(objective: Objective, groups: Groups) -> tuple[float, np.ndarray]:
    """The loss and its gradient at each token, by central differences."""
    step = 1e-6
    gradient = [
        (objective(moved(groups, (p, g, t), -step), groups) - objective(moved(groups, (p, g, t), step), groups))
        / (2 * step)
        for p, group in enumerate(groups)
        for g, response in enumerate(group)
        for t in range(len(response.new))
    ]
    return -objective(groups, groups), np.array(gradient)


def algorithm_of(case: Case) -> AlgorithmConfig:
    loaded = OmegaConf.load(CONF / f"{case.name}.yaml")
    is_global = (CONF / f"{case.name}.yaml").read_text().startswith("# @package _global_")
    train = OmegaConf.merge(
        OmegaConf.structured(TrainConfig),
        loaded if is_global else {"algorithm": loaded},
        {"algorithm": {"num_minibatches": 1} | case.overrides},
    )
    return OmegaConf.to_object(train.algorithm)


def rollout_of(groups: Groups) -> Rollout:
    prompt = Prompt(Problem("id", "", ""), "", (1,))
    scored = [
        ScoredGroup(
            prompt,
            completions=tuple(Completion((0,) * len(r.new), tuple(r.sampler), "", truncated=False) for r in group),
            scores=tuple(Score(r.reward, {}, Verdict.correct if r.correct else Verdict.wrong, None) for r in group),
        )
        for group in groups
    ]
    return Rollout(tuple(scored), tuple(range(len(scored))), (), 0.0, 0.0)


def loss_under_test(algorithm: AlgorithmConfig, groups: Groups, dtype: DType) -> tuple[float, np.ndarray, float]:
    """The loss, its gradient at each token, and the share of tokens that are clipped."""
    responses = [response for group in groups for response in group]
    lengths_B = torch.tensor([len(response.new) for response in responses])
    offsets_B1 = torch.arange(len(responses))[:, None] % 3  # where the prompt ends
    positions = torch.arange(MAX_NEW_TOKENS + 3)
    mask_BT = (positions >= offsets_B1) & (positions < offsets_B1 + lengths_B[:, None])

    def placed(values: Iterable[Sequence[float]]) -> torch.Tensor:
        values = torch.from_numpy(np.concatenate(list(values)).astype(np.float32))
        return torch.full(mask_BT.shape, torch.nan).masked_scatter(mask_BT, values)

    sampler_BT, old_BT, ref_BT, logprobs_BT = (
        placed(getattr(response, name) for response in responses) for name in ("sampler", "old", "ref", "new")
    )
    logprobs_BT.requires_grad_()
    in_loss = algorithm.kl.placement == "loss"
    kl = None
    if algorithm.beta and not in_loss:
        kl_BT = kl_divergence(old_BT, ref_BT, estimator=algorithm.kl.estimator)
        kl_B = kl_BT[mask_BT].split(lengths_B.tolist())
        kl = [kl_B[first : first + G] for first in range(0, P * G, G)]
    rollout = rollout_of(groups)
    selected_PG = selected_responses(rollout, algorithm)
    values = (
        [[torch.tensor(r.values) for r in group] for group in groups] if algorithm.advantage.kind == "gae" else None
    )
    advantages = rollout_advantages(rollout, selected_PG, kl, algorithm, values)
    (sequences,) = make_minibatches(rollout, advantages, selected_PG, algorithm, MAX_NEW_TOKENS)
    correction = algorithm.sampler_correction
    loss, stats = policy_loss(
        logprobs_BT,
        old_BT,
        placed(sequence.advantages for sequence in sequences),
        torch.tensor([sequence.weight for sequence in sequences]),
        mask_BT,
        surrogate=algorithm.surrogate,
        level=algorithm.ratio.level,
        epsilon=algorithm.epsilon,
        epsilon_high=algorithm.epsilon_high,
        dual_clip=algorithm.dual_clip,
        beta=algorithm.beta if in_loss else 0.0,
        ref_logprobs_BT=ref_BT if algorithm.beta else None,
        kl_estimator=algorithm.kl.estimator,
        correction_BT=sampler_correction(
            old_BT,
            sampler_BT,
            mask_BT,
            method=correction.method_in(dtype),
            cap=correction.cap,
            floor=correction.floor,
        ),
    )
    loss.backward()
    clipped = (stats.clip_low + stats.clip_high) / stats.num_tokens
    return loss.item(), logprobs_BT.grad[mask_BT].double().numpy(), clipped.item()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case.name, *map(str, case.overrides)]))
def test_loss_and_gradient_match_the_paper(case):
    algorithm = algorithm_of(case)
    clipped = []
    for seed in range(4):
        groups = random_groups(seed, case.drift)
        expected_loss, expected_gradient = loss_by_hand(case.objective, groups)
        loss, gradient, clipped_share = loss_under_test(algorithm, groups, case.dtype)
        # GSPO's terms almost cancel, so the rounding of the terms is large relative to their sum.
        assert loss == pytest.approx(expected_loss, rel=1e-6, abs=1e-6 * np.abs(expected_gradient).sum())
        assert np.linalg.norm(gradient - expected_gradient) <= 1e-6 * np.linalg.norm(expected_gradient)
        assert expected_gradient.any()
        clipped.append(clipped_share)
    if algorithm.surrogate != "none" and algorithm.advantage.reward != "none":
        assert 0.02 < mean(clipped) < 0.5  # otherwise clipping was not tested


@pytest.mark.parametrize("sampled_by", [[0.3, -1.2, 0.8], [1.0, 0.2, -0.5]], ids=["the student", "an older student"])
def test_the_expected_gradient_of_distillation_is_that_of_the_reverse_kl(sampled_by):
    # One token: each of three possible ones is a response, weighted by the probability that it is sampled.
    algorithm = algorithm_of(Case("on_policy_distillation", papers.on_policy_distillation, {}, 0.0))
    logits_V, old_V, teacher_V = torch.tensor([[0.3, -1.2, 0.8], sampled_by, [-0.4, 0.1, 0.9]]).double()
    logits_V.requires_grad_()
    student_V, old_V, teacher_V = (logits.log_softmax(-1) for logits in (logits_V, old_V, teacher_V))
    (expected_V,) = torch.autograd.grad((student_V.exp() * (student_V - teacher_V)).sum(), logits_V, retain_graph=True)
    loss, _ = policy_loss(
        student_V[:, None],
        old_V[:, None],
        torch.zeros(3, 1),
        old_V.exp(),
        torch.ones(3, 1),
        beta=algorithm.beta,
        ref_logprobs_BT=teacher_V[:, None],
        kl_estimator=algorithm.kl.estimator,
    )
    loss.backward()
    torch.testing.assert_close(logits_V.grad, expected_V)
    assert expected_V.abs().max() > 0.1


def test_every_method_in_conf_is_tested():
    assert {case.name for case in CASES} == {path.stem for path in CONF.glob("*.yaml")}


def test_r1_zero_has_the_published_settings():
    train = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(CONF / "r1_zero.yaml"))
    responses = train.rollout.prompts_per_step * train.rollout.group_size
    assert responses == 8192
    assert responses // train.algorithm.num_minibatches == 512
    assert train.algorithm.reference.refresh_steps == 25 * train.algorithm.num_minibatches == 400
    assert (train.algorithm.epsilon, train.algorithm.beta, train.algorithm.num_epochs) == (10, 0.001, 1)
    assert (train.optimizer.lr, train.rollout.temperature, train.rollout.max_new_tokens) == (3e-6, 1, 32768)
