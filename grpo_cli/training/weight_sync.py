"""New weights into vLLM, and the checks that they arrived."""

import math
from collections.abc import Mapping, Sequence

from grpo_cli.choices import DType
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DivergedError, TrainingError
from grpo_cli.rollout.collect import sample_seed
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.loop import merged
from grpo_cli.training.policy import Policy
from grpo_cli.types import Prompt, Request, Sampling

MISMATCH_LIMITS = {DType.fp32: 1e-4, DType.bf16: 0.1}  # measured: 1e-6 and 0.02
NUM_CHECKED = 4  # responses a rank
MAX_CHECKED_TOKENS = 16  # of each


def sync_weights(policy: Policy, engine: RolloutEngine) -> int:
    """Every weight of the policy, by name, into the engine, which then has its room for generating again.

    Returns how many weights were compared after it.
    """
    num_compared = engine.load_weights(policy.named_weights())
    policy.offload()
    engine.open_cache()
    return num_compared


def check_sampler(
    policy: Policy, engine: RolloutEngine, prompts: Sequence[Prompt], config: TrainConfig | SFTTask
) -> dict[str, float]:
    """The `sampler/...` metrics of a few short responses by the weights just sent; called on all ranks, and leaves
    the engine as `sync_weights` does.

    The comparison of each step's rollout sees weights only one step later, and `sft` has no rollout. Raises
    TrainingError as `check_mismatch` does.
    """
    requests = [Request(prompt.token_ids, sample_seed("check", i)) for i, prompt in enumerate(prompts[:NUM_CHECKED])]
    sampling = Sampling(policy.temperature, top_p=1.0, max_new_tokens=MAX_CHECKED_TOKENS, stop=())
    sampled = engine.generate(requests, sampling)
    sequences = [TrainingSequence(requests[i].token_ids, c.token_ids, c.logprobs) for i, c in sampled]
    with engine.asleep():
        metrics = merged(policy.mismatch(sequences))
    sync_weights(policy, engine)
    check_mismatch(metrics, config)
    return metrics


def mismatch_limit(config: TrainConfig | SFTTask) -> float:
    """How far the sampler's and the trainer's log-probabilities may differ on average."""
    limit = config.rollout.mismatch_limit if isinstance(config, TrainConfig) else None
    return MISMATCH_LIMITS[config.cluster.dtype] if limit is None else limit


def check_mismatch(metrics: Mapping[str, float], config: TrainConfig | SFTTask) -> None:
    """Stop the run when the sampler's log-probabilities are not the trainer's, on average.

    The two compute the same distribution, so that what is left is rounding. More means that the policy learns from
    responses of another policy.
    """
    limit = mismatch_limit(config)
    seen = metrics["sampler/logprob_diff_mean"]
    if not math.isfinite(seen):
        raise DivergedError("The log-probabilities of the sampled tokens are not finite.")
    if not seen <= limit:
        raise TrainingError(
            f"vLLM's and the trainer's log-probabilities of the same tokens differ by {seen:.2g} on average "
            f"(sampler/logprob_diff_mean); at most {limit:g} is rounding in {config.cluster.dtype}. Likely causes: the "
            "last weight sync did not reach vLLM; sampling settings that the trainer does not apply; an attention "
            "kernel that is wrong for this model. docs/families.md lists the model families that were tested. "
            "r1zero train accepts more with rollout.mismatch_limit, if the difference is only rounding on this machine."
        )
