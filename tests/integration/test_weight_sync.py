"""New weights in vLLM, and what finds that they did not arrive."""

import pytest

from grpo_cli.errors import TrainingError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.policy import Policy
from grpo_cli.training.weight_sync import check_sampler, sync_weights
from grpo_cli.types import Problem, Prompt

pytestmark = pytest.mark.usefixtures("ranks")
IDS = (23, 15, 16, 12, 6)
PROMPTS = [Prompt(Problem("p", "13 5 6 2", ""), "13 5 6 2", IDS)]
STEP = [TrainingSequence(IDS, (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)]


@pytest.fixture
def engine(rollout_engine, model, config):
    yield rollout_engine
    sync_weights(Policy(model, config), rollout_engine)  # as the other tests expect it


def test_weights_that_arrived_agree_and_stale_ones_stop_the_run(model, config, engine):
    config.optimizer.lr = 0.1
    policy = Policy(model, config)
    policy.update([STEP])
    sync_weights(policy, engine)
    assert check_sampler(policy, engine, PROMPTS, config)["sampler/logprob_diff_mean"] < 1e-4
    policy.update([STEP])  # and no sync
    with pytest.raises(TrainingError, match="log-probabilities of the same tokens differ"):
        check_sampler(policy, engine, PROMPTS, config)
