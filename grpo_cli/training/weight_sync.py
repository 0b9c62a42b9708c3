"""Sends new weights to vLLM, and checks that they arrived."""

from collections.abc import Sequence

from grpo_cli.metrics.metrics import Tally
from grpo_cli.rollout.collect import sample_seed
from grpo_cli.rollout.remote_engine import RemoteEngine
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.loop import of_all_ranks
from grpo_cli.training.mismatch import check_mismatch, tally_mismatch
from grpo_cli.training.policy import Policy
from grpo_cli.types import Prompt, Request, Sampling

NUM_CHECKED = 4  # responses per rank
MAX_CHECKED_TOKENS = 16  # of each


def sync_weights(policy: Policy, engine: RolloutEngine | RemoteEngine) -> int:
    """Send every weight of the policy to the engine by name, then give the engine the memory for its KV cache.

    Returns how many weights were compared afterwards.
    """
    num_compared = engine.load_weights(policy.named_weights())
    policy.offload()
    engine.open_cache()
    return num_compared


def check_sampler(
    policy: Policy, engine: RolloutEngine | RemoteEngine, prompts: Sequence[Prompt], limit: float
) -> dict[str, float]:
    """The `sampler/...` metrics of a few short responses, sampled with the weights just sent; called on all ranks.

    Each step's rollout is compared too, but only one step later, and `sft` has no rollout. Raises TrainingError if the
    difference is above `limit`, as `check_mismatch` does. Leaves the engine as `sync_weights` does.
    """
    requests = [Request(prompt.token_ids, sample_seed("check", i)) for i, prompt in enumerate(prompts[:NUM_CHECKED])]
    sampling = Sampling(policy.temperature, top_p=1.0, max_new_tokens=MAX_CHECKED_TOKENS, stop=())
    sampled = engine.generate(requests, sampling)
    sequences = [TrainingSequence(requests[i].token_ids, c.token_ids, c.logprobs) for i, c in sampled]
    tally = Tally()
    with engine.asleep():
        for microbatch, logprobs_N, _ in policy.forwarded(sequences):
            tally_mismatch(tally, microbatch.scatter(logprobs_N), microbatch)
        metrics = of_all_ranks(tally).compute()
    sync_weights(policy, engine)
    check_mismatch(metrics, limit)
    return metrics
