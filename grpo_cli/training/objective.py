"""The objective of a micro-batch, from the settings and the user's functions.

B sequences, T tokens.
"""

from torch import Tensor

from grpo_cli.algorithm.correction import off_policy_mask, sampler_correction
from grpo_cli.algorithm.loss import LossStats, policy_loss
from grpo_cli.choices import DType, KLPlacement
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.training.batch import MicroBatch
from grpo_cli.training.own_functions import own_function


def microbatch_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor | None,
    microbatch: MicroBatch,
    algorithm: AlgorithmConfig,
    dtype: DType,
) -> tuple[Tensor, LossStats]:
    """The loss to minimise and its statistics; `dtype` decides what sampler_correction.method=auto means."""
    return policy_loss(
        logprobs_BT,
        old_logprobs_BT,
        microbatch.advantages_BT,
        microbatch.weights_BT,
        microbatch.mask_BT,
        surrogate=own_function("surrogate", place) if (place := algorithm.functions.surrogate) else algorithm.surrogate,
        level=algorithm.ratio.level,
        epsilon=algorithm.epsilon,
        epsilon_high=algorithm.epsilon_high,
        dual_clip=algorithm.dual_clip,
        beta=algorithm.beta if algorithm.kl.placement == KLPlacement.loss else 0.0,
        ref_logprobs_BT=ref_logprobs_BT,
        kl_estimator=algorithm.kl.estimator,
        correction_BT=_correction(logprobs_BT, old_logprobs_BT, microbatch, algorithm, dtype),
        sampler_logprobs_BT=microbatch.sampler_logprobs_BT,
    )


def _correction(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, microbatch: MicroBatch, algorithm: AlgorithmConfig, dtype: DType
) -> Tensor | None:
    sampler_BT, mask_BT, settings = microbatch.sampler_logprobs_BT, microbatch.mask_BT, algorithm.sampler_correction
    if sampler_BT is None:
        return None
    method, cap, floor = settings.method_in(dtype), settings.cap, settings.floor
    weights_BT = sampler_correction(old_logprobs_BT, sampler_BT, mask_BT, method=method, cap=cap, floor=floor)
    if settings.max_kl is None:
        return weights_BT
    kept_BT = off_policy_mask(logprobs_BT, sampler_BT, microbatch.advantages_BT, mask_BT, max_kl=settings.max_kl)
    return kept_BT if weights_BT is None else weights_BT * kept_BT
