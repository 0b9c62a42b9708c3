"""Engines that die and are started again: each rank is a thread, with real sockets and a fake vLLM engine."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.rollout import restart
from grpo_cli.rollout.remote_engine import serve
from grpo_cli.rollout.restart import remote_engines
from grpo_cli.rollout.restart_link import RestartLink
from grpo_cli.types import Completion, Request, Sampling

SAMPLING = Sampling(1.0, 1.0, 8)
OLD, NEW = [[("a", torch.full((2, 3), value).t()), ("b", torch.ones(2, dtype=torch.bfloat16))] for value in (0.0, 1.0)]


class Killed(Exception):
    """The end of an engine, as by `kill -9`."""


class FakeEngine:
    """Its responses have its first weight as their log-probability. Dies where `deaths` says, each place once."""

    made: ClassVar[list["FakeEngine"]] = []
    deaths: ClassVar[set[str]] = set()

    def __init__(self, model, cluster, *, for_training):
        self.weights, self.served = [], []
        FakeEngine.made.append(self)
        self.die("starting")

    def die(self, place):
        if place in FakeEngine.deaths:
            FakeEngine.deaths.remove(place)
            raise Killed

    def generate(self, requests, sampling):
        self.die("asked")
        for index, request in enumerate(requests):
            self.served.append(request.seed)
            yield index, Completion((request.seed,), (float(self.weights[0][1][0, 0]),), "", truncated=False)
            self.die(f"after {request.seed}")

    def load_weights(self, weights):
        self.weights = [next(weights)]
        self.die("loading")
        self.weights += weights
        return len(self.weights)

    def open_cache(self):
        self.die("loaded")


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch):
    monkeypatch.setattr(FakeEngine, "made", [])
    monkeypatch.setattr(FakeEngine, "deaths", set())
    monkeypatch.setitem(sys.modules, "grpo_cli.rollout.vllm_engine", SimpleNamespace(RolloutEngine=FakeEngine))
    monkeypatch.setattr("grpo_cli.stop.listen", lambda: None)  # only the main thread can


def run(trains, monkeypatch, *, trainers: int = 1, engines: int = 1) -> list:
    """What `trains(engine, rank)` returns on each rank that trains; the others serve until those have ended."""
    store, meet, values = dist.HashStore(), threading.Barrier(trainers, timeout=30), [None] * trainers

    def gathering(rank: int):
        def gather(value, _group):
            values[rank] = value
            meet.wait()
            found = list(values)
            meet.wait()
            return found

        return gather

    of_thread = threading.local()
    monkeypatch.setattr(restart.dist, "new_group", lambda **_: None)
    monkeypatch.setattr(restart, "gather", lambda *arguments: of_thread.gather(*arguments))

    def serving(rank: int) -> None:
        """As the launcher: a rank that dies is started again."""
        while True:
            link = RestartLink(store, Device.cpu, rank, trainers, engines)
            try:
                return serve(link, None, ClusterConfig())
            except Killed:
                for connection in link.__dict__.get("_trainers", {}).values():
                    connection.close()

    def training(rank: int):
        of_thread.gather = gathering(rank)
        with remote_engines(RestartLink(store, Device.cpu, rank, trainers, engines)) as engine:
            return trains(engine, rank)

    with ThreadPoolExecutor(trainers + engines) as pool:
        results = [pool.submit(training, rank) for rank in range(trainers)]
        served = [pool.submit(serving, rank) for rank in range(trainers, trainers + engines)]
        return [result.result(timeout=60) for result in results + served][:trainers]


def requests(rank: int, count: int = 9) -> list[Request]:
    return [Request((1, 2), 10 * rank + i) for i in range(count)]


def step(engine, rank, weights=OLD):
    """A weight sync, then the token and the log-probability of each response."""
    num_compared = engine.load_weights(iter(weights))
    assert num_compared == (2 if rank == 0 else 0)
    found = dict(engine.generate(requests(rank), SAMPLING))
    return [(*found[i].token_ids, *found[i].logprobs) for i in range(len(found))]


def expected(rank, value=0.0):
    return [(10 * rank + i, value) for i in range(9)]


@pytest.mark.parametrize("place", ["never", "starting", "loading", "loaded", "asked", "after 0", "after 4", "after 8"])
@pytest.mark.parametrize(("trainers", "engines"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_each_request_is_answered_once_by_an_engine_with_the_newest_weights(trainers, engines, place, monkeypatch):
    FakeEngine.deaths.add(place)
    results = run(
        lambda engine, rank: (step(engine, rank), step(engine, rank, NEW)),
        monkeypatch,
        trainers=trainers,
        engines=engines,
    )
    assert results == [(expected(rank), expected(rank, 1.0)) for rank in range(trainers)]
    assert len(FakeEngine.made) == engines + (place != "never")


def test_only_requests_without_a_response_are_sampled_again(monkeypatch):
    FakeEngine.deaths.add("after 4")
    run(step, monkeypatch)
    assert [engine.served for engine in FakeEngine.made] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


def test_other_engines_take_over_and_the_new_one_takes_part_afterwards(monkeypatch):
    FakeEngine.deaths.add("after 3")

    def trains(engine, rank):
        step(engine, rank)
        while len(engine._connected()) < 2:
            pass
        step(engine, rank)

    run(trains, monkeypatch, engines=2)
    dead, *alive = sorted(FakeEngine.made, key=lambda engine: len(engine.served))[:3]
    assert sum(len(engine.served) for engine in alive) + len(dead.served) == 18
    assert FakeEngine.made[2].served


def test_an_engine_that_dies_between_two_steps_is_replaced(monkeypatch):
    FakeEngine.deaths.add("after 8")  # the last response of the step
    assert run(lambda engine, rank: (step(engine, rank), step(engine, rank)), monkeypatch) == [
        (expected(0), expected(0))
    ]
