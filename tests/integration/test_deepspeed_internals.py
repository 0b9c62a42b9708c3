"""The undocumented parts of DeepSpeed that the trainer uses are all there in the installed release."""

import inspect

import deepspeed
import pytest
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum

from grpo_cli.training import deepspeed_config, engine, shards
from grpo_cli.training import deepspeed_internals as internals
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.data_only import data_only
from grpo_cli.training.policies import rl_policy

STEP = TrainingSequence((23, 15), (16, 12, 6), (-1.0,) * 3, advantage=1.0, weight=1.0)


@pytest.mark.parametrize("stage", range(4))
def test_deepspeed_has_every_attribute_and_writes_every_key_that_is_listed(stage, ranks, model, config, tmp_path):
    config.cluster.zero_stage = stage
    policy = rl_policy(model, config)
    policy.update([[STEP]])
    policy.save(tmp_path / "saved")
    wrapped, optimizer = policy._engine._engine, policy._engine._optimizer
    missing = [name for name in internals.ENGINE if not hasattr(wrapped, name)]
    missing += [name for name in internals.OPTIMIZER[stage] if not hasattr(optimizer, name)]
    missing += [
        name for p in wrapped.module.parameters() for name in internals.PARAMETER[stage] if not hasattr(p, name)
    ]
    (file,) = (tmp_path / "saved").glob("*_model_states.pt")
    with data_only():
        written = torch.load(file, weights_only=True)
        missing += [key for key in internals.MODEL_STATES[stage] if key not in written]
        for file in (tmp_path / "saved").glob("*_optim_states.pt"):
            written = torch.load(file, weights_only=True)["optimizer_state_dict"]
            missing += [key for key in internals.OPTIMIZER_STATES[stage] if key not in written]
    assert missing == []
    assert len(list((tmp_path / "saved").glob("*_optim_states.pt"))) == (stage > 0)
    assert internals.SHM_OP in deepspeed.ops.__compatible_ops__


def test_a_checkpoint_of_an_early_python_3_11_can_be_loaded(tmp_path, monkeypatch):
    """3.11.2 is the Python of Debian 12. Up to 3.11.3, an enum was pickled as a call of `getattr`."""
    monkeypatch.setattr(ZeroStageEnum, "__reduce_ex__", lambda stage, _: (getattr, (ZeroStageEnum, stage.name)))
    torch.save(ZeroStageEnum.weights, tmp_path / "stage.pt")
    assert torch.load(tmp_path / "stage.pt", weights_only=True) is ZeroStageEnum.weights


def test_every_name_that_is_listed_is_used():
    sources = "".join(map(inspect.getsource, (deepspeed_config, engine, shards)))
    by_stage = (internals.OPTIMIZER, internals.PARAMETER, internals.MODEL_STATES, internals.OPTIMIZER_STATES)
    names = {
        internals.SHM_OP,
        *internals.ENGINE,
        *(n for table in by_stage for of_stage in table.values() for n in of_stage),
    }
    assert [name for name in sorted(names) if name not in sources] == []
