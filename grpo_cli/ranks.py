"""The few exchanges between ranks: small Python values, in the order of the ranks."""

import os
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

# How long a rank may wait for the others. One long response can take more than torch's own 10 minutes with NCCL.
COLLECTIVE_TIMEOUT = timedelta(hours=2)  # of tensors
EXCHANGE_TIMEOUT = timedelta(days=1)  # of values, which often wait until every rank has generated its share


def start_ranks(device: str) -> None:
    """Join the ranks that the launcher started, on the `device` of the cluster, cpu or cuda.

    It comes before anything else that uses a GPU, and before the vLLM engine, which takes part in the group.
    """
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # otherwise every rank of a node would use its first GPU
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    _exchange_group(dist.group.WORLD)


def rank() -> int:
    return dist.get_rank()


def world_size() -> int:
    return dist.get_world_size()


def gather(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The `value` of every rank, or of those of `group`, on each of them."""
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group or _exchange_group(dist.group.WORLD))
    return values


@cache
def _exchange_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All ranks of `world`, over gloo: an exchange needs no GPU then, and NCCL's watchdog does not end a long wait."""
    return dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT)
