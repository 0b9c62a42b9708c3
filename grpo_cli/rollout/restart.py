"""Engines that are started again after they died (`rollout.restart_engines`).

The launcher starts the process again. The ranks that train connect to it, send it the weights, and ask again for the
responses that they did not get. A response depends only on the weights and its seed, so the results stay the same.
"""

import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, wait
from typing import Any, Self

import torch.distributed as dist
from torch import Tensor

from grpo_cli.errors import Stopped
from grpo_cli.ranks import EXCHANGE_TIMEOUT, gather
from grpo_cli.rollout.link import SENDER, Link
from grpo_cli.rollout.remote_engine import END, GENERATE, LOAD_WEIGHTS, RemoteEngine, divided
from grpo_cli.rollout.restart_link import RestartLink, address_key
from grpo_cli.types import Completion, Request, Sampling

POLL_S = 0.1
LOST = (OSError, EOFError, AuthenticationError)  # the errors of a connection whose other end has died


class RestartedEngines(RemoteEngine):
    """The engines of all ranks that generate. Without those that have died, until they are back.

    All ranks that train call each method at the same time.
    """

    def __init__(self, link: RestartLink) -> None:
        self._rank, self._engines, self._store = link.rank, link.engines, link.store
        # Not the default group: `generate` may run in a thread while another one uses that.
        self._group = dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT)
        self._connections: dict[int, Connection] = {}  # by engine
        self._addresses: dict[int, bytes] = {}  # by engine, the last one that was tried
        self._weights: list[tuple[str, Tensor]] = []  # the newest; only on the rank SENDER
        self._num_compared: dict[int, int] = {}  # by engine that has these weights; only on the rank SENDER

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """As RemoteEngine's. Requests of an engine that dies go to those that live, or wait until one is back."""
        left = dict(enumerate(requests))
        while any(gather(bool(left), self._group)):
            engines = self._ready()
            shares = divided(left, engines, self._rank, cached={})
            for engine, share in shares.items():
                self._send(engine, (GENERATE, [requests[i] for i in share], sampling))
            owed = {engine: len(share) for engine, share in shares.items()}
            while waiting := {c: engine for engine, c in self._connections.items() if owed.get(engine)}:
                received = wait(list(waiting))
                for engine in [engine for connection, engine in waiting.items() if connection in received]:
                    if answer := self._receive(engine):
                        owed[engine] -= 1
                        index = shares[engine][answer[0]]
                        del left[index]
                        yield index, answer[1]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> int:
        """As RemoteEngine's. Keeps a copy of the weights in CPU memory, for engines that are started later."""
        self._weights = []
        for name, weight in weights:  # each is gathered from all ranks that train
            if self._rank == SENDER:
                self._weights.append((name, weight.detach().to("cpu", copy=True).contiguous()))
        self._num_compared = {}
        self._ready()
        return min(self._num_compared.values(), default=0)

    def __enter__(self) -> Self:
        """Wait until all engines have started."""
        while len(self._connected()) < len(self._engines):
            time.sleep(POLL_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rank == SENDER and kind in (None, Stopped):
            for engine in self._engines:
                self._send(engine, (END,))

    def _ready(self) -> list[int]:
        """The engines that have the newest weights, for all ranks the same. Waits until there is one."""
        while True:
            for engine in self._connected():
                if self._rank == SENDER and engine not in self._num_compared:
                    for message in ((LOAD_WEIGHTS,), *self._weights, None):
                        self._send(engine, message)
                    if (num_compared := self._receive(engine)) is not None:
                        self._num_compared[engine] = num_compared
            (ready, *_) = gather(sorted(self._num_compared), self._group)
            if ready:
                return ready
            time.sleep(POLL_S)

    def _connected(self) -> list[int]:
        """The engines that all ranks that train are connected to, after they have connected to those that are new."""
        keys = {engine: address_key(engine) for engine in self._engines}
        addresses = {engine: self._store.get(key) for engine, key in keys.items() if self._store.check([key])}
        (addresses, *_) = gather(addresses, self._group)
        for engine in [engine for engine, address in addresses.items() if address != self._addresses.get(engine)]:
            self._drop(engine)
            self._addresses[engine] = addresses[engine]
            address, key = pickle.loads(addresses[engine])
            with suppress(*LOST):
                self._connections[engine] = Client(address, authkey=key)
                self._connections[engine].send(self._rank)
            if self._rank == SENDER:
                self._receive(engine)  # "ready"
        connected = set.intersection(*gather(set(self._connections), self._group))
        for engine in self._connections.keys() - connected:  # it ends, if it has not died
            self._drop(engine)
        return sorted(connected)

    def _send(self, engine: int, message: Any) -> None:
        try:
            if engine in self._connections:
                self._connections[engine].send_bytes(pickle.dumps(message))
        except LOST:
            self._drop(engine)

    def _receive(self, engine: int) -> Any:
        """The next message of an engine; None if it has died."""
        try:
            return pickle.loads(self._connections[engine].recv_bytes()) if engine in self._connections else None
        except LOST:
            self._drop(engine)

    def _drop(self, engine: int) -> None:
        """Close the connection to an engine, which ends then, if it has not died."""
        self._num_compared.pop(engine, None)
        if engine in self._connections:
            self._connections.pop(engine).close()


def remote_engines(link: Link | RestartLink) -> RemoteEngine:
    """The engines of the ranks that generate, for a rank that trains."""
    return RestartedEngines(link) if isinstance(link, RestartLink) else RemoteEngine(link)
