"""Ranks that only generate: here each rank is a thread, with real messages and a fake vLLM engine."""

import sys
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import replace
from threading import Thread
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.errors import Stopped, TrainingError
from grpo_cli.rollout.link import Link
from grpo_cli.rollout.remote_engine import RemoteEngine, divided, serve
from grpo_cli.types import Completion, Request, Sampling

SAMPLING = Sampling(1.0, 1.0, 8)
WEIGHTS = [("a", torch.arange(6.0).view(2, 3).t()), ("b", torch.ones(2, dtype=torch.bfloat16))]


class FakeEngine:
    """Completes its requests in reverse order. `made` has all engines."""

    made: ClassVar[list["FakeEngine"]] = []

    def __init__(self, model, cluster, *, for_training):
        assert for_training
        assert cluster.vllm.sleep_level == 0
        self.batches, self.weights, self.opened = [], [], 0
        FakeEngine.made.append(self)

    def generate(self, requests, sampling):
        assert sampling == SAMPLING
        self.batches.append([request.seed for request in requests])
        for index in reversed(range(len(requests))):
            yield index, Completion((requests[index].seed,), (-0.5,), "", truncated=True)

    def load_weights(self, weights):
        self.weights = list(weights)
        return len(self.weights)

    def open_cache(self):
        self.opened += 1


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch):
    monkeypatch.setattr(FakeEngine, "made", [])
    monkeypatch.setitem(sys.modules, "grpo_cli.rollout.vllm_engine", SimpleNamespace(RolloutEngine=FakeEngine))
    monkeypatch.setattr("grpo_cli.stop.listen", lambda: None)  # only the main thread can


def run(trains, *, trainers: int = 1, engines: int = 1) -> list:
    """What `trains(engine, rank)` returns on each rank that trains; the others serve until those have ended."""
    store = dist.HashStore()

    def of_rank(rank: int):
        link = Link(store, Device.cpu, rank, trainers, engines)
        if link.generates:
            return serve(link, None, ClusterConfig())
        with RemoteEngine(link) as engine:
            return trains(engine, rank)

    results = [Future() for _ in range(trainers + engines)]

    def set_result(rank: int) -> None:
        try:
            results[rank].set_result(of_rank(rank))
        except BaseException as error:
            results[rank].set_exception(error)

    for rank in range(trainers + engines):
        Thread(target=set_result, args=(rank,), daemon=True).start()  # a thread that hangs must not hang the tests
    done, missing = wait(results, timeout=60, return_when=FIRST_EXCEPTION)
    for result in sorted(done, key=results.index):
        result.result()  # raises what the rank has raised
    assert not missing
    return [result.result() for result in results[:trainers]]


def requests(*seeds: int) -> list[Request]:
    return [Request((1, 2), seed) for seed in seeds]


@pytest.mark.parametrize(("trainers", "engines"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_each_rank_that_trains_gets_the_completions_of_its_own_requests(trainers, engines):
    def trains(engine, rank):
        asked = requests(*range(10 * rank, 10 * rank + 7))
        found = dict(engine.generate(asked, SAMPLING))
        return [found[index].token_ids for index in range(7)], len(found)

    results = run(trains, trainers=trainers, engines=engines)
    assert results == [([(10 * rank + i,) for i in range(7)], 7) for rank in range(trainers)]


def test_the_responses_to_a_prompt_go_to_different_engines():
    run(lambda engine, _: list(engine.generate(requests(0, 1, 2, 3, 4, 5), SAMPLING)), engines=3)
    assert sorted(engine.batches for engine in FakeEngine.made) == [[[0, 3]], [[1, 4]], [[2, 5]]]


def test_single_requests_of_several_ranks_go_to_different_engines():
    run(lambda engine, rank: list(engine.generate(requests(rank), SAMPLING)), trainers=2, engines=2)
    assert sorted(engine.batches for engine in FakeEngine.made) == [[[0]], [[1]]]


def test_a_rank_that_ends_first_does_not_take_its_requests_with_it():
    """Not even what it asked of an engine without a request for it. That engine would wait for ever."""
    for _ in range(10):
        assert run(lambda engine, rank: dict(engine.generate(requests(rank), SAMPLING)), trainers=2, engines=2)


def test_a_response_that_is_continued_stays_with_the_engine_that_has_it_in_its_cache():
    cut = Completion((7,), (-0.5,), "", truncated=True)
    continued = [Request((1, 2), 5, replace(cut, token_ids=(n,))) for n in (2, 1, 3)]
    assert divided(dict(enumerate(continued)), (8, 9), 0, {(1,): 8, (2,): 9, (3,): 7}) == {8: [1, 2], 9: [0]}

    def trains(engine, _):
        asked = requests(0, 1, 2, 3)
        sampled = dict(engine.generate(asked, SAMPLING))
        last = [Request((1, 2), 10 + n, sampled[n]) for n in (1, 3, 2)]
        list(engine.generate(last, SAMPLING))
        engine.load_weights(iter(WEIGHTS))  # empties the caches
        list(engine.generate(last, SAMPLING))

    run(trains, engines=2)
    assert sorted(engine.batches for engine in FakeEngine.made) == [[[0, 2], [12], [11, 12]], [[1, 3], [11, 13], [13]]]


def test_an_engine_without_a_request_is_asked_too():
    # Ranks that share an engine have to call it together.
    assert run(lambda engine, _: list(engine.generate([], SAMPLING)), engines=2) == [[]]
    assert [engine.batches for engine in FakeEngine.made] == [[[]], [[]]]


@pytest.mark.parametrize("trainers", [1, 2])
def test_every_engine_gets_every_weight_and_opens_its_cache(trainers):
    seen = []

    def trains(engine, rank):
        return engine.load_weights(pair for pair in WEIGHTS if seen.append((rank, pair[0])) is None)

    assert run(trains, trainers=trainers, engines=2) == [2, 0][:trainers]
    assert sorted(seen) == [(rank, name) for rank in range(trainers) for name in "ab"]
    for engine in FakeEngine.made:
        assert engine.opened == 1
        for (name, weight), (sent_name, sent) in zip(engine.weights, WEIGHTS, strict=True):
            assert name == sent_name
            assert weight.dtype == sent.dtype
            assert torch.equal(weight, sent)


def test_a_run_that_stops_on_request_ends_the_ranks_that_generate():
    def trains(engine, rank):
        raise Stopped("after step 3")

    with pytest.raises(Stopped, match="after step 3"):
        run(trains)


def test_a_rank_that_fails_leaves_the_end_of_the_others_to_the_launcher():
    ended = []
    link = SimpleNamespace(rank=0, engines=range(1, 2), receive=lambda _: "ready", send=lambda *_: ended.append(1))
    with pytest.raises(TrainingError), RemoteEngine(link):
        raise TrainingError("the loss is not finite")
    assert not ended
