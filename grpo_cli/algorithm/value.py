"""With a critic: advantages of tokens, and the critic's loss.

The value of a token is the sum of rewards that the critic expects from this token on, before it is sampled.
"""

from itertools import accumulate

import torch
from torch import Tensor

# T tokens of a response, N tokens of several responses


def generalised_advantages(
    rewards_T: Tensor, values_T: Tensor, *, gamma: float = 1.0, gae_lambda: float = 1.0
) -> Tensor:
    """The (T,) float64 advantages A[t] = sum over k of (gamma * lambda)^k delta[t + k].

    delta[t] = reward[t] + gamma * value[t + 1] - value[t] (GAE, arXiv:1506.02438, eq. 16). The value after the last
    token is 0, also if the response was cut. With lambda = 1, A is the discounted sum of the rewards from t on minus
    the value; with lambda = 0, it is delta.

    >>> generalised_advantages(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.75]), gae_lambda=0.5)
    tensor([0.3750, 0.2500], dtype=torch.float64)
    """
    rewards, values = rewards_T.tolist(), values_T.tolist()
    steps = zip(rewards, values, [*values[1:], 0.0], strict=False)
    deltas = [reward + gamma * after - value for reward, value, after in steps]
    backwards = accumulate(reversed(deltas), lambda later, delta: delta + gamma * gae_lambda * later)
    return torch.tensor(list(backwards)[::-1], dtype=torch.float64)


def value_loss(
    values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None
) -> tuple[Tensor, Tensor]:
    """The (N,) losses (value - return)^2 / 2, and the (N,) booleans where the clip decides.

    With `clip`, a loss is at least that of the value clipped to old +- clip: a value that moved further towards its
    return has no gradient (the code of PPO; Engstrom et al., arXiv:2005.12729, section 3).
    """
    losses_N = (values_N - returns_N).square() / 2
    if clip is None:
        return losses_N, torch.zeros_like(losses_N, dtype=torch.bool)
    clipped_N = (values_N.clamp(old_values_N - clip, old_values_N + clip) - returns_N).square() / 2
    return torch.maximum(losses_N, clipped_N), clipped_N > losses_N
