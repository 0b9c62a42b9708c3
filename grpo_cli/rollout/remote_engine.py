"""vLLM engines in other ranks: what trains asks for completions and sends weights, what generates serves them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Self

from torch import Tensor

from grpo_cli import stop
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.errors import Stopped
from grpo_cli.model import BaseModel
from grpo_cli.rollout.link import SENDER, Link
from grpo_cli.rollout.restart_link import RestartLink
from grpo_cli.types import Completion, Request, Sampling

if TYPE_CHECKING:
    from grpo_cli.rollout.vllm_engine import RolloutEngine

GENERATE, LOAD_WEIGHTS, END = "generate", "load weights", "end"  # what ranks that train ask for


class RemoteEngine:
    """The engines of all ranks that generate, with the interface of RolloutEngine. They never sleep.

    A context manager, because those ranks end at its end.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._cached: dict[tuple[int, ...], int] = {}  # tokens of a cut response: the engine that has sampled them

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, its completion), in any order. Called on all ranks that train."""
        shares = divided(dict(enumerate(requests)), self._link.engines, self._link.rank, self._cached)
        for engine, share in shares.items():
            self._link.send((GENERATE, [requests[i] for i in share], sampling), engine)
        for turn in zip_longest(*shares.values()):
            for (engine, share), is_due in zip(shares.items(), turn, strict=True):
                if is_due is not None:
                    index, completion = self._link.receive(engine)
                    if completion.truncated:
                        self._cached[completion.token_ids] = engine
                    yield share[index], completion

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> int:
        """Send every weight to all engines. Returns how many of them an engine compared with what was sent."""
        self._cached.clear()
        if self._link.rank != SENDER:
            for _ in weights:  # each is gathered from all ranks that train
                pass
            return 0
        for engine in self._link.engines:
            self._link.send((LOAD_WEIGHTS,), engine)
        self._link.send_weights(weights)
        return min(self._link.receive(engine) for engine in self._link.engines)

    def open_cache(self) -> None:
        """Nothing: an engine opens its cache after it has loaded weights."""

    def asleep(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __enter__(self) -> Self:
        """Wait until all engines have started."""
        if self._link.rank == SENDER:
            for engine in self._link.engines:
                self._link.receive(engine)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the ranks that generate, unless this rank has failed: then the launcher ends them."""
        if kind in (None, Stopped):
            if self._link.rank == SENDER:
                for engine in self._link.engines:
                    self._link.send((END,), engine)
            self._link.flush()  # also what this rank has asked of an engine without a request for it


def divided(
    requests: Mapping[int, Request], engines: Sequence[int], first: int, cached: Mapping[tuple[int, ...], int]
) -> dict[int, list[int]]:
    """The keys of each engine's requests; the first one goes to the engine at place `first`, counted on.

    The requests of a group go to different engines, so that all engines have the same mix of short and long ones. A
    response that is continued stays with the engine that has it in its cache.
    """
    shares: dict[int, list[int]] = {engine: [] for engine in engines}
    for place, (key, request) in enumerate(requests.items()):
        engine = cached.get(request.prefix.token_ids) if request.prefix else None
        shares[engine if engine in shares else engines[(first + place) % len(engines)]].append(key)
    return shares


def serve(link: Link | RestartLink, model: BaseModel, cluster: ClusterConfig) -> None:
    """Answer the ranks that train until they end. They all ask to generate at the same time."""
    from grpo_cli.rollout.vllm_engine import RolloutEngine

    awake = replace(cluster, vllm=replace(cluster.vllm, sleep_level=0))
    engine = RolloutEngine(model, awake, for_training=True)
    link.send("ready", SENDER)
    stop.listen()  # the ranks that train finish their step first
    while True:
        asked, *arguments = link.receive(SENDER)
        if asked == GENERATE:
            others = [link.receive(trainer)[1:] for trainer in link.trainers if trainer != SENDER]
            _generate(engine, link, [arguments, *others])
        elif asked == LOAD_WEIGHTS:
            num_compared = engine.load_weights(link.received_weights())
            engine.open_cache()
            link.send(num_compared, SENDER)
        else:
            link.flush()
            return


def _generate(
    engine: "RolloutEngine", link: Link | RestartLink, asked: Sequence[tuple[Sequence[Request], Sampling]]
) -> None:
    """Send each completion to the rank that asked for it, as soon as it is complete."""
    shares = zip(link.trainers, asked, strict=True)
    owners = [(trainer, place) for trainer, (requests, _) in shares for place in range(len(requests))]
    requests = [request for requests, _ in asked for request in requests]
    for index, completion in engine.generate(requests, asked[0][1]):
        trainer, place = owners[index]
        link.send((place, completion), trainer)
