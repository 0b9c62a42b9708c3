"""Connects an engine that is started again after it died (`rollout.restart_engines`) with the ranks that train.

A process group cannot lose a rank, so each rank that trains has a socket to each engine. Only on one machine.
"""

import pickle
from collections.abc import Iterator
from functools import cached_property
from multiprocessing.connection import Connection, Listener
from secrets import token_bytes
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grpo_cli.choices import Device

LOCALHOST = "127.0.0.1"


class RestartLink:
    """As `Link`, with sockets. The methods are for a rank that generates; `RestartedEngines` has the other ends."""

    def __init__(self, store: dist.Store, device: Device, rank: int, num_trainers: int, num_engines: int) -> None:
        self.store = store
        self._device = torch.device("cuda" if device == Device.cuda else "cpu")
        self.rank = rank
        self.trainers = range(num_trainers)
        self.engines = range(num_trainers, num_trainers + num_engines)
        self.generates = rank in self.engines

    @cached_property
    def _trainers(self) -> dict[int, Connection]:
        """The connections, by rank. The first use waits until all ranks that train have connected."""
        key = token_bytes(16)
        with Listener((LOCALHOST, 0), backlog=len(self.trainers), authkey=key) as listener:
            self.store.set(address_key(self.rank), pickle.dumps((listener.address, key)))
            connections = [listener.accept() for _ in self.trainers]
        return {connection.recv(): connection for connection in connections}

    def send(self, value: Any, to: int) -> None:
        self._trainers[to].send_bytes(pickle.dumps(value))

    def receive(self, sender: int) -> Any:
        return pickle.loads(self._trainers[sender].recv_bytes())  # only ranks of this run have the key

    def received_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The (name, tensor) pairs that the first rank that trains sends."""
        while pair := self.receive(self.trainers[0]):
            name, weight = pair
            yield name, weight.to(self._device)

    def flush(self) -> None:
        """Nothing: what is sent arrives even if this process ends."""


def address_key(engine: int) -> str:
    """Where in the store an engine leaves its address."""
    return f"address of rank {engine}"
