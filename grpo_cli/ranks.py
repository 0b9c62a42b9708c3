"""Starting the process group, and exchanging small Python values between ranks."""

import os
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

# How long a rank waits for the others. One long response can take longer than torch's default of 10 minutes with NCCL.
COLLECTIVE_TIMEOUT = timedelta(hours=2)  # for tensors
EXCHANGE_TIMEOUT = timedelta(days=1)  # for Python values, which often wait until every rank has generated its share


def start_ranks(device: str, store: dist.Store | None = None) -> None:
    """Join the process group of the ranks that the launcher started. `device` is cpu or cuda.

    Call it before anything else uses a GPU, and before the vLLM engine starts, which uses the group. `store` connects
    the ranks of the group if they are not all ranks; RANK and WORLD_SIZE are then those within the group.
    """
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # otherwise every rank of a node would use its first GPU
    if not dist.is_initialized():
        backend, options = "nccl" if device == "cuda" else "gloo", {}
        if store is not None:
            options = {"store": store, "rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, **options)
    _exchange_group(dist.group.WORLD)


def rank() -> int:
    return dist.get_rank()


def world_size() -> int:
    return dist.get_world_size()


def gather(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The `value` of every rank (of `group`, if given), in the order of the ranks. All of them must call this."""
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group or _exchange_group(dist.group.WORLD))
    return values


@cache
def _exchange_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All ranks of `world`, over gloo: no GPU is needed, and NCCL's watchdog does not interrupt a long wait."""
    return dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT)
