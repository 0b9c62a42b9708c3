"""How far the log-probabilities of the responses that a step trains on may differ from the trainer's."""

import pytest

from grpo_cli.errors import DivergedError, TrainingError
from grpo_cli.training.mismatch import check_mismatch, rollout_limit

ANOTHER_POLICY = (["replay=runs/first"], ["cluster=cpu_split", "rollout.max_staleness=1"])


@pytest.mark.parametrize("overrides", ANOTHER_POLICY, ids=" ".join)
def test_responses_of_another_policy_may_differ_but_must_be_finite(overrides, compose_train):
    metrics = {"sampler/logprob_diff_mean": 2.0}
    with pytest.raises(TrainingError, match=r"differ by 2 on average .* the limit is 0\.0001"):
        check_mismatch(metrics, rollout_limit(compose_train()))
    limit = rollout_limit(compose_train(*overrides, "rollout.mismatch_limit=0.1"))
    check_mismatch(metrics, limit)
    with pytest.raises(DivergedError, match="not finite"):
        check_mismatch({"sampler/logprob_diff_mean": float("nan")}, limit)
