"""New weights into vLLM, and the canary that tells when they did not arrive."""

from collections.abc import Mapping

from grpo_cli.config.schema import DType, TrainConfig
from grpo_cli.errors import TrainingError
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.training.policy import Policy

MISMATCH_LIMITS = {DType.fp32: 1e-4, DType.bf16: 0.1}  # measured: 1e-6 and 0.02


def sync_weights(policy: Policy, engine: RolloutEngine) -> int:
    """Every weight of the policy, by name, into the engine, which then has its room for generating again.

    Returns how many weights were compared after it.
    """
    num_compared = engine.load_weights(policy.named_weights())
    policy.offload()
    engine.open_cache()
    return num_compared


def mismatch_limit(config: TrainConfig) -> float:
    """How far the sampler's and the trainer's log-probabilities may differ on average."""
    limit = config.rollout.mismatch_limit
    return MISMATCH_LIMITS[config.cluster.dtype] if limit is None else limit


def check_mismatch(metrics: Mapping[str, float], config: TrainConfig) -> None:
    """Stop the run when the sampler's log-probabilities are not the trainer's, on average.

    The two compute the same distribution, so that what is left is rounding. More means that the policy learns from
    responses of another policy.
    """
    limit = mismatch_limit(config)
    seen = metrics["sampler/logprob_diff_mean"]
    if not seen <= limit:
        raise TrainingError(
            f"vLLM's and the trainer's log-probabilities of the same tokens differ by {seen:.2g} on average "
            f"(sampler/logprob_diff_mean), and rollout.mismatch_limit is {limit:g}. Likely causes: the last weight "
            "sync did not reach vLLM; a tied lm_head that was not sent by name; two dtypes (cluster.dtype); sampling "
            "settings that the trainer does not apply; an attention kernel that is wrong for this model. If the "
            "figure is only rounding on this machine, raise rollout.mismatch_limit."
        )
