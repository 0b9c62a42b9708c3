"""The objectives of the papers, with plain loops in float64 and the published constants.

Nothing here uses grpo_cli. P prompts, G completions a prompt.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

P, G, MAX_NEW_TOKENS, STD_EPS = 3, 4, 9, 1e-6


@dataclass
class Response:
    reward: float
    correct: bool
    sampler: np.ndarray  # log-probabilities of the sampler
    old: np.ndarray  # of the sampling policy, computed by the trainer
    ref: np.ndarray  # of the reference
    new: np.ndarray  # of the trained policy
    values: np.ndarray  # of the critic, before each token


Groups = list[list[Response]]
# An objective to maximise. Arguments: the groups, and the same groups for values inside a stop-gradient.
Objective = Callable[[Groups, Groups], float]


def mean(values):
    return sum(values) / len(values)


def std(values):
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))


def ppo(ratio, advantage, low, high):
    return min(ratio * advantage, min(max(ratio, low), high) * advantage)


def k3(response, t):
    return math.exp(response.ref[t] - response.new[t]) - (response.ref[t] - response.new[t]) - 1


def penalised(response, beta):
    """The reward minus beta times the k1 estimate of the sampling policy's KL."""
    return response.reward - beta * sum(response.old - response.ref)


def grpo(groups, _, *, beta=0.0, low=0.8, high=1.2):
    """DeepSeekMath, equation 3."""
    total = 0.0
    for group in groups:
        rewards = [response.reward for response in group]
        for response in group:
            agree = max(rewards) == min(rewards)
            advantage = 0.0 if agree else (response.reward - mean(rewards)) / (std(rewards) + STD_EPS)
            tokens = 0.0
            for t in range(len(response.new)):
                ratio = math.exp(response.new[t] - response.old[t])
                tokens += ppo(ratio, advantage, low, high) - beta * k3(response, t)
            total += tokens / len(response.new) / G
    return total / P


def dr_grpo(groups, _):
    """Understanding R1-Zero-like training, figure 1 and section 3.2."""
    total = 0.0
    for group in groups:
        for response in group:
            advantage = response.reward - mean([other.reward for other in group])
            for t in range(len(response.new)):
                total += ppo(math.exp(response.new[t] - response.old[t]), advantage, 0.8, 1.2)
    return total / (P * G * MAX_NEW_TOKENS)


def dapo(groups, _):
    """DAPO, equation 8, with the mean over the batch's tokens."""
    total, count = 0.0, 0
    for group in groups:
        rewards = [response.reward for response in group]
        for response in group:
            advantage = (response.reward - mean(rewards)) / (std(rewards) + STD_EPS) if len({*rewards}) > 1 else 0
            for t in range(len(response.new)):
                total += ppo(math.exp(response.new[t] - response.old[t]), advantage, 0.8, 1.28)
                count += 1
    return total / count


def rloo(groups, _, *, beta=0.0):
    """Back to basics, section 3: each response against the other G - 1."""
    total = 0.0
    for group in groups:
        for i, response in enumerate(group):
            others = [penalised(other, beta) for j, other in enumerate(group) if j != i]
            total += (penalised(response, beta) - sum(others) / (G - 1)) * sum(response.new)
    return total / (P * G)


def reinforce(groups, _, *, baseline=False):
    responses = [response for group in groups for response in group]
    expected = mean([response.reward for response in responses]) if baseline else 0.0
    return mean([(response.reward - expected) * sum(response.new) for response in responses])


def whitened_ppo(responses, returns, kl_loss=lambda response, t: 0.0):
    """PPO's objective on the returns of each token of each response, normalised over all tokens of the batch."""
    everything = [value for of_response in returns for value in of_response]
    total = 0.0
    for response, of_response in zip(responses, returns, strict=True):
        tokens = [
            ppo(
                math.exp(response.new[t] - response.old[t]),
                (of_response[t] - mean(everything)) / (std(everything) + STD_EPS),
                0.8,
                1.2,
            )
            - kl_loss(response, t)
            for t in range(len(response.new))
        ]
        total += mean(tokens)
    return total / len(responses)


def reinforce_pp(groups, _, *, beta=0.0):
    """REINFORCE++, equations 8 to 10: the reward is at the last token, the KL at each token."""
    responses = [response for group in groups for response in group]
    returns = []
    for response in responses:
        length = len(response.old)
        rewards = [-beta * (response.old[t] - response.ref[t]) for t in range(length)]
        rewards[-1] += response.reward
        returns.append([sum(rewards[t:]) for t in range(length)])
    return whitened_ppo(responses, returns)


def ppo_with_critic(groups, _, *, beta=0.0, gamma=1.0, lam=1.0):
    """PPO, equation 7, with the advantages of GAE, equation 16, as a sum for each token, and InstructGPT's rewards."""
    responses = [response for group in groups for response in group]
    advantages = []
    for response in responses:
        length = len(response.old)
        rewards = [-beta * (response.old[t] - response.ref[t]) for t in range(length)]
        rewards[-1] += response.reward
        values = [*response.values, 0.0]
        deltas = [rewards[t] + gamma * values[t + 1] - values[t] for t in range(length)]
        advantages.append([sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t)) for t in range(length)])
    everything = [value for of_response in advantages for value in of_response]
    total = 0.0
    for response, of_response in zip(responses, advantages, strict=True):
        for t in range(len(response.new)):
            advantage = (of_response[t] - mean(everything)) / (std(everything) + STD_EPS)
            total += ppo(math.exp(response.new[t] - response.old[t]), advantage, 0.8, 1.2)
    return total / len(everything)


def reinforce_pp_baseline(groups, _, *, beta=0.0):
    """REINFORCE++, section 3.3: minus the group's mean, normalised over the batch; the KL is in the loss, as k2."""
    returns = [
        [response.reward - mean([other.reward for other in group])] * len(response.new)
        for group in groups
        for response in group
    ]
    responses = [response for group in groups for response in group]
    return whitened_ppo(responses, returns, lambda response, t: beta * (response.new[t] - response.ref[t]) ** 2 / 2)


def lite_ppo(groups, _):
    """Lite-PPO: the group's mean, the std of the batch's raw rewards, the mean over the batch's tokens."""
    spread = std([response.reward for group in groups for response in group]) + STD_EPS
    total, count = 0.0, 0
    for group in groups:
        for response in group:
            advantage = (response.reward - mean([other.reward for other in group])) / spread
            for t in range(len(response.new)):
                total += ppo(math.exp(response.new[t] - response.old[t]), advantage, 0.8, 1.2)
                count += 1
    return total / count


def unbiased_kl(groups, stopped):
    """GRPO with DeepSeek-V3.2's KL: each token's k3 times its ratio."""
    total = grpo(groups, stopped)
    for group in groups:
        for response in group:
            terms = [math.exp(response.new[t] - response.old[t]) * k3(response, t) for t in range(len(response.new))]
            total -= 0.04 * mean(terms) / (P * G)
    return total


def corrected(weight):
    """GRPO with token terms weighted by a function of the trainer's probability divided by the sampler's."""

    def objective(groups, _):
        total = 0.0
        for group in groups:
            rewards = [response.reward for response in group]
            for response in group:
                agree = max(rewards) == min(rewards)
                advantage = 0.0 if agree else (response.reward - mean(rewards)) / (std(rewards) + STD_EPS)
                tokens = [
                    weight(math.exp(response.old[t] - response.sampler[t]))
                    * ppo(math.exp(response.new[t] - response.old[t]), advantage, 0.8, 1.2)
                    for t in range(len(response.new))
                ]
                total += mean(tokens) / (P * G)
        return total

    return objective


truncated = corrected(lambda ratio: min(ratio, 1.1))
icepop = corrected(lambda ratio: ratio if 0.9 <= ratio <= 1.1 else 0.0)


def gspo(groups, _):
    """GSPO, equations 5 to 7."""
    total = 0.0
    for group in groups:
        rewards = [response.reward for response in group]
        for response in group:
            advantage = (response.reward - mean(rewards)) / (std(rewards) + STD_EPS) if len({*rewards}) > 1 else 0
            likelihood_ratio = math.exp(sum(response.new) - sum(response.old))
            total += ppo(likelihood_ratio ** (1 / len(response.new)), advantage, 1 - 3e-4, 1 + 4e-4) / G
    return total / P


def cispo(groups, stopped):
    """MiniMax-M1, equations 4 and 5, with only the upper bound 5, and the mean over the batch's tokens."""
    total, count = 0.0, 0
    for group, stopped_group in zip(groups, stopped, strict=True):
        rewards = [response.reward for response in group]
        for response, constant in zip(group, stopped_group, strict=True):
            advantage = (response.reward - mean(rewards)) / (std(rewards) + STD_EPS) if len({*rewards}) > 1 else 0
            for t in range(len(response.new)):
                total += min(math.exp(constant.new[t] - constant.old[t]), 5.0) * advantage * response.new[t]
                count += 1
    return total / count


def on_policy_distillation(groups, _, *, reward_weight=0.0):
    """GKD with lambda = 1 and the reverse KL, section 3: the mean over a response's tokens, then over responses.

    A token's KL is the estimate that `unbiased_kl` describes. With a weight, PPO's term of the raw reward is added.
    """
    responses = [response for group in groups for response in group]
    total = 0.0
    for response in responses:
        for t in range(len(response.new)):
            ratio = math.exp(response.new[t] - response.old[t])
            token = reward_weight * ppo(ratio, response.reward, 0.8, 1.2) - ratio * k3(response, t)
            total += token / len(response.new)
    return total / len(responses)


def expert_iteration(groups, _):
    """The mean log-likelihood of the correct responses, independent of their total reward."""
    return mean([sum(response.new) for group in groups for response in group if response.correct])
