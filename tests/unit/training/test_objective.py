import math

import pytest
import torch
from torch import tensor

from grpo_cli.choices import DType
from grpo_cli.config.algorithm import AlgorithmConfig, SamplerCorrectionConfig
from grpo_cli.training.batch import MicroBatch, TrainingSequence, make_microbatches
from grpo_cli.training.objective import microbatch_loss

# Log-probabilities of vLLM: a token of 0.5 twice; the policy gives 0.25 to the first response's tokens.
GOOD = TrainingSequence((1,), (2, 3), (math.log(0.5),) * 2, advantage=1.0, weight=0.25)
BAD = TrainingSequence((1,), (4, 5), (math.log(0.5),) * 2, advantage=-1.0, weight=0.25)
FAR = tensor([[0.25, 0.25], [0.25, 0.25]]).log()


def batch(*sequences: TrainingSequence) -> MicroBatch:
    (microbatch,) = make_microbatches(sequences, 100, torch.device("cpu"))
    return microbatch


def gradient(settings: SamplerCorrectionConfig) -> list[list[float]]:
    logprobs = FAR.clone().requires_grad_()
    algorithm = AlgorithmConfig(sampler_correction=settings)
    loss, _ = microbatch_loss(logprobs, FAR, None, batch(GOOD, BAD), algorithm, DType.fp32)
    loss.backward()
    return logprobs.grad.tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[-0.25] * 2, [0.25] * 2]),
        ({"max_kl": 0.5}, [[-0.25] * 2, [0.0] * 2]),  # ln 2 = 0.69 is above 0.5
        ({"max_kl": 0.7}, [[-0.25] * 2, [0.25] * 2]),
        ({"max_kl": 0.5, "method": "token_truncate"}, [[-0.125] * 2, [0.0] * 2]),  # ratio 0.25 / 0.5
    ],
)
def test_a_bad_response_far_from_the_policy_has_no_gradient(settings, expected):
    assert gradient(SamplerCorrectionConfig(**settings)) == expected
