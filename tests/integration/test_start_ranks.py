"""Each rank uses its own device, and ranks wait for each other as long as necessary."""

import pkgutil

import pytest

from grpo_cli.config.commands import COMMAND_OF_LOOP, LOOPS

# Rank 1 has a long response, and the process group has a short timeout.
WAIT = """
import sys, time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.ranks import gather, rank, start_ranks

if sys.argv[1] == "start_ranks":
    start_ranks("cpu")
else:
    from grpo_cli.training.engine import init_distributed

    init_distributed(ClusterConfig())
assert dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout == timedelta(hours=2)
_set_pg_timeout(timedelta(seconds=1), dist.group.WORLD)
if rank() == 1:
    time.sleep(4)
assert gather(rank()) == [0, 1]
"""


@pytest.mark.parametrize("started_by", ["start_ranks", "init_distributed"])
def test_a_rank_waits_for_a_long_response_on_another_rank(started_by, run_on_ranks):
    run_on_ranks(WAIT, started_by, num_ranks=2)


class GPUSelectedError(Exception):
    pass


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_selects_its_gpu_before_anything_else(loop, compose_as, monkeypatch):
    import torch

    def set_device(index: int) -> None:
        raise GPUSelectedError(index)

    def join(*_, **__) -> None:
        raise AssertionError("joined the other ranks first")

    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    monkeypatch.setattr(torch.distributed, "all_gather_object", join)
    config = compose_as(COMMAND_OF_LOOP[loop], "cluster=gpu_1")
    with pytest.raises(GPUSelectedError, match="3"):
        pkgutil.resolve_name(LOOPS[loop])(config, None)
