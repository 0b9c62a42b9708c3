"""What is likely to be wrong about an objective that would run."""

from collections.abc import Iterator

from grpo_cli.choices import RatioLevel, SamplerCorrection, Select, Surrogate, Weighting
from grpo_cli.config.schema import AlgorithmConfig


def objective_faults(algorithm: AlgorithmConfig) -> Iterator[str]:
    """Ranges of the correction of the sampler's probabilities, each with the setting to change."""
    correction = algorithm.sampler_correction
    if correction.method == SamplerCorrection.token_mask and not 0 <= correction.floor < 1 < correction.cap:
        yield (
            f"algorithm.sampler_correction.method=token_mask with floor={correction.floor} and cap={correction.cap} "
            "would drop tokens of which sampler and trainer agree, whose ratio is 1. Set "
            "algorithm.sampler_correction.floor=0.5 and algorithm.sampler_correction.cap=5, for example."
        )


def objective_warnings(algorithm: AlgorithmConfig) -> Iterator[str]:
    """Combinations that do something else than their settings promise."""
    if algorithm.dual_clip is not None and algorithm.surrogate != Surrogate.clip:
        yield (
            f"algorithm.dual_clip={algorithm.dual_clip:g} has no effect with algorithm.surrogate="
            f"{algorithm.surrogate.value}. Set algorithm.surrogate=clip, or algorithm.dual_clip=null."
        )
    num_steps = algorithm.num_minibatches * algorithm.num_epochs
    # Expert iteration (select=correct) learns a fixed set of responses, whoever sampled them.
    if algorithm.surrogate == Surrogate.none and algorithm.select == Select.all and num_steps > 1:
        yield (
            f"algorithm.surrogate=none takes {num_steps} optimizer steps a rollout without a ratio: from the second on "
            "the policy is no longer the one that sampled, and the gradient is biased. Set algorithm.num_minibatches=1 "
            "and algorithm.num_epochs=1, or algorithm.surrogate=clip."
        )
    if algorithm.ratio.level == RatioLevel.sequence and algorithm.weighting == Weighting.token_mean:
        yield (
            "algorithm.ratio.level=sequence with algorithm.weighting=token_mean weighs a response's one ratio by its "
            "length: long responses count more. Set algorithm.weighting=sequence_mean, as GSPO has it."
        )
