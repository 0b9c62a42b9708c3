"""How far vLLM's log-probabilities of sampled tokens are from the trainer's, and how far they may be."""

import math
from collections.abc import Mapping

from torch import Tensor

from grpo_cli.algorithm.correction import sampler_mismatch
from grpo_cli.choices import DType
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DivergedError, TrainingError
from grpo_cli.metrics.metrics import Tally
from grpo_cli.training.batch import MicroBatch

MISMATCH_LIMITS = {DType.fp32: 1e-4, DType.bf16: 0.1}  # measured: 1e-6 and 0.02


def tally_mismatch(tally: Tally, trainer_logprobs_BT: Tensor, microbatch: MicroBatch) -> None:
    """Count the `sampler/...` metrics of sampled responses, and some by the age of tokens if they are not all new."""
    compared = trainer_logprobs_BT, microbatch.sampler_logprobs_BT
    sums, maxima = sampler_mismatch(*compared, microbatch.mask_BT)
    num_tokens = sums.num_tokens.item()
    tally.mean("sampler/logprob_diff_mean", sums.logprob_diff.item(), num_tokens)
    tally.mean("sampler/prob_diff_mean", sums.prob_diff.item(), num_tokens)
    tally.mean("sampler/kl", sums.kl.item(), num_tokens)
    tally.mean("sampler/ratio_mean", sums.ratio.item(), num_tokens)
    tally.max("sampler/logprob_diff_max", maxima.logprob_diff.item())
    tally.max("sampler/prob_diff_max", maxima.prob_diff.item())
    tally.max("sampler/ratio_max", maxima.ratio.item())
    ages_BT = microbatch.ages_BT
    if ages_BT is not None:
        for age in map(int, ages_BT[microbatch.mask_BT].unique()):
            of_age, _ = sampler_mismatch(*compared, microbatch.mask_BT & (ages_BT == age))
            tally.mean(f"staleness/{age}/ratio_mean", of_age.ratio.item(), of_age.num_tokens.item())
            tally.mean(f"staleness/{age}/kl", of_age.kl.item(), of_age.num_tokens.item())


def mismatch_limit(dtype: DType, setting: float | None = None) -> float:
    """How far the sampler's and the trainer's log-probabilities may differ on average: `setting`, if it is given."""
    return MISMATCH_LIMITS[dtype] if setting is None else setting


def rollout_limit(config: TrainConfig) -> float:
    """The limit for the responses that a step trains on; none if another policy has sampled them."""
    if config.replay is not None or config.rollout.max_staleness > 0:
        return math.inf
    return mismatch_limit(config.cluster.dtype, config.rollout.mismatch_limit)


def check_mismatch(metrics: Mapping[str, float], limit: float) -> None:
    """Raise TrainingError if the sampler's and the trainer's log-probabilities differ by more than `limit` on average.

    Both compute the same distribution, so they differ only by rounding. A larger difference means that the policy
    learns from responses of another policy.
    """
    seen = metrics["sampler/logprob_diff_mean"]
    if not math.isfinite(seen):
        raise DivergedError("The log-probabilities of the sampled tokens are not finite.")
    if not seen <= limit:
        raise TrainingError(
            f"vLLM's and the trainer's log-probabilities of the same tokens differ by {seen:.2g} on average "
            f"(sampler/logprob_diff_mean); the limit is {limit:g}. Likely causes: the last "
            "weight sync did not reach vLLM; sampling settings that the trainer does not apply; an attention "
            "kernel that is wrong for this model. docs/families.md lists the model families that were tested. "
            "If the difference is only rounding on this machine, raise rollout.mismatch_limit of r1zero train."
        )
