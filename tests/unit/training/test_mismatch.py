"""How far the log-probabilities of the responses that a step trains on may differ from the trainer's."""

import pytest

from grpo_cli.errors import DivergedError, TrainingError
from grpo_cli.training.mismatch import check_mismatch, rollout_limit


def test_the_responses_of_a_replay_may_be_of_any_policy_but_must_be_finite(compose_train):
    metrics = {"sampler/logprob_diff_mean": 2.0}
    with pytest.raises(TrainingError, match=r"differ by 2 on average .* the limit is 0\.0001"):
        check_mismatch(metrics, rollout_limit(compose_train()))
    replay = rollout_limit(compose_train("replay=runs/first", "rollout.mismatch_limit=0.1"))
    check_mismatch(metrics, replay)
    with pytest.raises(DivergedError, match="not finite"):
        check_mismatch({"sampler/logprob_diff_mean": float("nan")}, replay)
