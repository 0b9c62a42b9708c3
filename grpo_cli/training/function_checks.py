"""Checks of the user's parts of the objective on a tiny batch, before anything heavy starts.

P prompts, G completions a prompt, B responses, T tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.errors import ConfigError
from grpo_cli.training.own_functions import check_returned, own_function
from grpo_cli.user_functions import users_traceback

LENGTHS: tuple[int, ...] = (3, 1, 2)
MASK_BT = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
ADVANTAGES_B1 = torch.tensor([[1.5], [-0.5], [0.0]])
SAMPLER_BT = torch.tensor([[0.5, 0.1, 0.9], [0.2, 1, 1], [0.3, 0.6, 1]]).log()
REF_BT = torch.tensor([[0.4, 0.2, 0.8], [0.3, 1, 1], [0.3, 0.5, 1]]).log()
RATIOS_BT = torch.tensor([[1.1, 1.0, 0.95], [0.9, 1, 1], [1.05, 0.9, 1]])


def check_functions(algorithm: AlgorithmConfig) -> None:
    """Raise ConfigError if a function of algorithm.functions cannot be imported, or fails on a tiny batch.

    It must return finite values of the right shape. A surrogate must have a gradient if an advantage is not 0, none if
    it is 0, and the same one however the responses are split into micro-batches.
    """
    functions = algorithm.functions
    if functions.advantage:
        rewards_PG = torch.tensor([[1.1, 0.0, 0.1, 1.0], [0.0] * 4, [1.1] * 4], dtype=torch.float64)
        given = {
            "rewards_PG": rewards_PG,
            "terms_PG": {"accuracy": rewards_PG.round(), "format": (rewards_PG - rewards_PG.round()) * 10},
            "correct_PG": rewards_PG >= 1,
            "lengths_PG": torch.tensor([[3, 1, 2, 4]] * 3),
        }
        returned = _called("advantage", functions.advantage, given)
        check_returned("advantage", functions.advantage, returned, {"(P, G)": tuple(rewards_PG.shape)})
    if functions.weighting:
        given = {
            "mask_BT": MASK_BT,
            "lengths_B": torch.tensor(LENGTHS),
            "selected_B": torch.tensor([True, True, False]),
            "advantages_BT": _filled(ADVANTAGES_B1.expand_as(MASK_BT)),
            "sampler_logprobs_BT": _filled(SAMPLER_BT),
            "max_new_tokens": 4,
        }
        returned = _called("weighting", functions.weighting, given)
        check_returned("weighting", functions.weighting, returned, {"(B,)": (3,), "(B, T)": tuple(MASK_BT.shape)})
    if functions.surrogate:
        _check_surrogate(functions.surrogate, has_reference=algorithm.beta > 0)


def _check_surrogate(place: str, *, has_reference: bool) -> None:
    key = f"algorithm.functions.surrogate={place}"

    def gradients(ratios_BT: Tensor, rows: slice) -> Tensor:
        num_tokens = max(LENGTHS[rows])
        mask_BT = MASK_BT[rows, :num_tokens]
        logprobs_BT = _filled(SAMPLER_BT + ratios_BT.log())[rows, :num_tokens].requires_grad_()
        given = {
            "logprobs_BT": logprobs_BT,
            "old_logprobs_BT": _filled(SAMPLER_BT)[rows, :num_tokens],
            "ref_logprobs_BT": _filled(REF_BT)[rows, :num_tokens] if has_reference else None,
            "sampler_logprobs_BT": _filled(SAMPLER_BT)[rows, :num_tokens],
            "advantages_BT": ADVANTAGES_B1[rows].expand_as(mask_BT).masked_fill(~mask_BT, 0.0),
            "mask_BT": mask_BT,
        }
        terms_BT = _called("surrogate", place, given)
        check_returned("surrogate", place, terms_BT, {"(B, T)": tuple(mask_BT.shape)})
        if not terms_BT.requires_grad:
            raise ConfigError(f"{key}: its terms have no gradient. Do not detach logprobs_BT everywhere.")
        (gradient_BT,) = torch.autograd.grad((terms_BT * mask_BT).sum(), logprobs_BT)
        if not gradient_BT.isfinite().all():
            raise ConfigError(f"{key}: its gradient is not finite. Avoid sqrt or log of 0, also in padding.")
        return torch.nn.functional.pad(gradient_BT, (0, MASK_BT.shape[1] - num_tokens))

    everything = slice(0, len(LENGTHS))
    sampled_BT = gradients(torch.ones_like(RATIOS_BT), everything)  # the policy that sampled
    moved_BT = gradients(RATIOS_BT, everything)
    with_advantage_BT = (ADVANTAGES_B1 != 0) & MASK_BT
    for row in with_advantage_BT.any(1).nonzero():
        if not sampled_BT[row].any():
            raise ConfigError(
                f"{key}: a response with the advantage {ADVANTAGES_B1[row].item():g} has no gradient although the "
                "policy is the one that sampled. Do not detach logprobs_BT there."
            )
    if moved_BT[~with_advantage_BT].any():
        raise ConfigError(
            f"{key}: a response whose advantage is 0 has a gradient, but such responses are not computed. Multiply the "
            "term by advantages_BT; for a penalty on every response use algorithm.beta."
        )
    split_BT = torch.cat([gradients(RATIOS_BT, slice(i, i + 1)) for i in range(len(LENGTHS))])
    if not torch.allclose(moved_BT, split_BT, rtol=1e-4, atol=1e-6):
        raise ConfigError(
            f"{key}: the gradient changes if the responses are split into micro-batches. A term may depend on its own "
            "response only: put statistics over several responses into algorithm.functions.weighting or advantage."
        )


def _called(part: str, place: str, given: dict[str, Any]) -> Any:
    function: Callable[..., Any] = own_function(part, place)
    try:
        return function(**given)
    except Exception as error:
        raise ConfigError(
            f"algorithm.functions.{part}={place}: fails on a tiny batch:\n{users_traceback(error)}"
        ) from error


def _filled(values_BT: Tensor) -> Tensor:
    return values_BT.masked_fill(~MASK_BT, 0.0)
