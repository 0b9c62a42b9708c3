"""Connects the ranks that train with the ranks that only generate (`cluster.rollout_ranks`).

Both kinds have a process group of their own, so a rank that trains sees only those that train, and DeepSpeed and vLLM
need no change. Messages between them go over gloo, weights over NCCL on GPUs.
"""

import os
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.ranks import COLLECTIVE_TIMEOUT, EXCHANGE_TIMEOUT, start_ranks
from grpo_cli.rollout.restart_link import RestartLink

SENDER = 0  # among the ranks that train, the one that sends weights


def join_roles(cluster: ClusterConfig, *, restarts_engines: bool = False) -> "Link | RestartLink | None":
    """Join the ranks with the same role: the last `cluster.rollout_ranks` generate. None if every rank does both.

    Call it before anything else uses a GPU or the process group. It changes RANK and WORLD_SIZE, which DeepSpeed and
    vLLM read, to those within the role. With `restarts_engines`, each engine is alone in its group.
    """
    if cluster.rollout_ranks == 0:
        return None
    store, rank, world_size = next(dist.rendezvous("env://"))
    num_trainers = world_size - cluster.rollout_ranks
    generates = rank >= num_trainers
    role_rank = rank - num_trainers if generates else rank
    role_size = cluster.rollout_ranks if generates else num_trainers
    role_store: dist.Store = dist.PrefixStore("generate" if generates else "train", store)
    if generates and restarts_engines:
        role_rank, role_size, role_store = 0, 1, dist.HashStore()
    os.environ["RANK"] = str(role_rank)
    os.environ["WORLD_SIZE"] = str(role_size)
    start_ranks(cluster.device, role_store)
    if restarts_engines:
        return RestartLink(store, cluster.device, rank, num_trainers, cluster.rollout_ranks)
    return Link(store, cluster.device, rank, num_trainers, cluster.rollout_ranks)


class Link:
    """The messages and weights between ranks of different roles. `rank` counts all ranks, those that train first."""

    def __init__(self, store: dist.Store, device: Device, rank: int, num_trainers: int, num_engines: int) -> None:
        self.rank = rank
        self.trainers = range(num_trainers)
        self.engines = range(num_trainers, num_trainers + num_engines)
        self._device = torch.device("cuda" if device == Device.cuda else "cpu")
        world_size = num_trainers + num_engines
        messages_store = dist.PrefixStore("messages", store)
        self._messages = dist.ProcessGroupGloo(messages_store, rank, world_size, EXCHANGE_TIMEOUT)
        self._sending: list[tuple[dist.Work, Tensor]] = []
        if rank == SENDER or self.generates:
            backend = dist.ProcessGroupNCCL if device == Device.cuda else dist.ProcessGroupGloo
            place = self.engines.index(rank) + 1 if self.generates else 0
            weights_store = dist.PrefixStore("weights", store)
            self._weights = backend(weights_store, place, 1 + num_engines, COLLECTIVE_TIMEOUT)

    @property
    def generates(self) -> bool:
        """Whether this rank has an engine and does not train."""
        return self.rank in self.engines

    def send(self, value: Any, to: int) -> None:
        """Send a message to another rank, without waiting until it is received."""
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        self._sending = [pair for pair in self._sending if not pair[0].is_completed()]
        self._sending += [(self._messages.send([tensor], to, 0), tensor) for tensor in (size, data)]

    def flush(self) -> None:
        """Wait until all messages are received: they would be lost if this process ended."""
        for work, _ in self._sending:
            work.wait()

    def receive(self, sender: int) -> Any:
        """The next message of another rank: they arrive in the order in which they were sent."""
        size = torch.zeros(1, dtype=torch.int64)
        self._messages.recv([size], sender, 0).wait()
        data = torch.empty(int(size), dtype=torch.uint8)
        self._messages.recv([data], sender, 0).wait()
        return pickle.loads(data.numpy())  # only ranks of this run can send

    def send_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Send (name, tensor) pairs to every engine, one at a time. Only for the rank SENDER."""
        for name, weight in weights:
            for engine in self.engines:
                self.send((name, weight.shape, weight.dtype), engine)
            self._weights.broadcast(weight.contiguous(), 0).wait()
        for engine in self.engines:
            self.send(None, engine)

    def received_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The pairs that `send_weights` sends. Only for a rank that generates."""
        while announced := self.receive(SENDER):
            name, shape, dtype = announced
            weight = torch.empty(shape, dtype=dtype, device=self._device)
            self._weights.broadcast(weight, 0).wait()
            yield name, weight
