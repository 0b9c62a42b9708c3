"""New weights arrive in vLLM, and a check detects if they do not."""

import pytest

from grpo_cli.errors import TrainingError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.weight_sync import check_sampler, sync_weights
from grpo_cli.types import Problem, Prompt

pytestmark = pytest.mark.usefixtures("ranks")
IDS = (23, 15, 16, 12, 6)
PROMPTS = [Prompt(Problem("p", "13 5 6 2", ""), "13 5 6 2", IDS)]
STEP = [TrainingSequence(IDS, (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)]


@pytest.fixture
def engine(rollout_engine, model, config):
    yield rollout_engine
    sync_weights(rl_policy(model, config), rollout_engine)  # restore the shared engine


def test_synced_weights_agree_and_stale_weights_stop_the_run(model, config, engine):
    config.optimizer.lr = 0.1
    policy = rl_policy(model, config)
    policy.update([STEP])
    sync_weights(policy, engine)
    assert check_sampler(policy, engine, PROMPTS, limit=1e-4)["sampler/logprob_diff_mean"] < 1e-4
    policy.update([STEP])  # without a sync
    with pytest.raises(TrainingError, match="log-probabilities of the same tokens differ"):
        check_sampler(policy, engine, PROMPTS, limit=1e-4)
