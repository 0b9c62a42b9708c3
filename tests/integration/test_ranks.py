"""The same three updates on two ranks as on one, whatever the ZeRO stage."""

import pytest
import torch
from safetensors.torch import load_file

# Ragged sequences, shared unevenly: rank 1 has three of twelve, so that it is filled up with idle micro-batches.
UPDATE = """
import random, sys
from safetensors.torch import save_file
from grpo_cli.config.schema import ClusterConfig, DType, ModelConfig, TrainConfig
from grpo_cli.model import load_base_model
from grpo_cli.ranks import rank, world_size
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.policy import Policy

config = TrainConfig(model=ModelConfig(name="tiny", path="builtin:make_zero"))
config.cluster = ClusterConfig(dtype=DType.fp32, zero_stage=int(sys.argv[1]), tokens_per_microbatch=60)
config.optimizer.lr, config.optimizer.eps = 1e-3, 1e-3
init_distributed(config.cluster)
draw = random.Random(0)
policy = Policy(load_base_model(config.model, needed_len=64), config)
for _ in range(3):
    sequences = []
    for _ in range(12):
        length = draw.randint(1, 40)
        tokens = tuple(draw.randrange(2, 180) for _ in range(length))
        advantage = draw.choice([-1.5, -0.5, 0.5, 2.0])
        sequences.append(TrainingSequence((23, 15), tokens, (-1.0,) * length, advantage, weight=1 / (12 * length)))
    mine = sequences if world_size() == 1 else (sequences[:9], sequences[9:])[rank()]
    policy.update([mine])
weights = {name: weight.clone().contiguous() for name, weight in policy.named_weights()}
if rank() == 0:
    save_file(weights, sys.argv[2])
"""


@pytest.fixture(scope="module")
def updated(run_on_ranks, tmp_path_factory):
    """Called for the weights after three updates at a ZeRO stage on so many ranks."""

    def update(stage: int, num_ranks: int) -> dict[str, torch.Tensor]:
        path = tmp_path_factory.mktemp("ranks") / "weights.safetensors"
        run_on_ranks(UPDATE, str(stage), str(path), num_ranks=num_ranks)
        return load_file(path)

    return update


@pytest.fixture(scope="module")
def on_one_rank(updated):
    return updated(stage=0, num_ranks=1)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_ranks_take_the_steps_of_one(stage, on_one_rank, updated):
    on_two_ranks = updated(stage, num_ranks=2)
    assert on_two_ranks.keys() == on_one_rank.keys()
    for name, weight in on_one_rank.items():
        torch.testing.assert_close(on_two_ranks[name], weight, rtol=0, atol=1e-5)
