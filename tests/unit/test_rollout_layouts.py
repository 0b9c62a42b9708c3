"""The simulation of layouts, compared with sums by hand for a model whose decoding step takes one second."""

import random
from dataclasses import replace
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path

import pytest

from grpo_cli.hardware import Hardware
from grpo_cli.planner.duration import BANDWIDTH_SHARE, MATRIX_SHARE, SEQUENCE_S, SLEEP_S, STEP_S

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = import_module("rollout_layouts")
    monkeypatch.setattr(module, "PROMPT", 0)
    return module


@pytest.fixture
def case(simulation):
    """Four GPUs and 8 responses of 10 tokens. An update of them by four GPUs takes 10 s: 5 passes * 8 * 10 tokens * 2
    FLOPs / (4 * 0.4 * 50 FLOP/s). To load the weights takes 2 s, to read them 1 s; all else takes no time.
    """
    cases = import_module("layout_cases")
    model = cases.Model(weights=1, active=1, attention=0, kv_token=1e-30)
    gpu = Hardware("slow", peak_flops=50, bandwidth=1 / BANDWIDTH_SHARE, link=1e30, memory_gib=80)
    return cases.Case("", 4, gpu, model, responses=8, mean=10, cap=100, kept=(10,))


def test_with_equal_lengths_the_simulation_is_the_formula(simulation, case):
    together, in_turn, overlapped = simulation.layouts(case, generating=2)
    assert together.step == pytest.approx(10 + 10 + 2 + SLEEP_S)
    assert in_turn.step == pytest.approx(10 + 20 + 2)  # half of the GPUs train in twice the time
    assert overlapped.step == pytest.approx(20 + 2)
    assert together.utilisation == pytest.approx(1)
    work = 2 * 10 + 2 * 20 + 4 * 2  # GPU-seconds
    assert in_turn.utilisation == pytest.approx(work / (4 * 32))
    assert overlapped.utilisation == pytest.approx(work / (4 * 22))


def test_with_staleness_a_long_generation_hides_the_update(simulation, case):
    *_, overlapped = simulation.layouts(case, generating=2, scale=(3, 1))
    assert overlapped.step == pytest.approx(30 + 2)


def test_the_split_with_the_shortest_step_is_found(simulation, case):
    # An update takes 40 s on one GPU, 20 on two and 13.3 on three; generation always takes 10.
    _, in_turn, overlapped = simulation.layouts(case)
    assert in_turn.generating == overlapped.generating == 1
    assert overlapped.step == pytest.approx(40 / 3 + 2)


def test_an_engine_is_ready_after_its_longest_response(simulation, case):
    responses = [simulation.Response(0, length) for length in (10, 100, 10)]
    seconds, busy = simulation.generate(responses, simulation.Engine(case, 0.5))
    assert seconds == pytest.approx(100)
    assert busy == pytest.approx(10 + 90 / 3)  # then one of three slots is in use


def test_a_response_starts_when_a_slot_is_free(simulation, case):
    # 0.5 * 80 GiB without vLLM's 2 hold 2.5 responses of mean length
    limited = simulation.Engine(replace(case, mean=38 * 2**30 / 2.5e-30), 0.5)
    assert limited.slots == 2
    responses = [simulation.Response(0, length) for length in (10, 30, 30)]
    seconds, busy = simulation.generate(responses, limited)
    assert seconds == pytest.approx(40)  # the third one runs from 10 to 40
    assert busy == pytest.approx(30 + 10 / 2)


def test_the_slowest_of_reading_computing_and_python_limits_a_decoding_step(simulation, case):
    engine = simulation.Engine(replace(case, model=replace(case.model, kv_token=0.5)), 0.5)
    assert engine.step_s(running=4, context=6) == pytest.approx(1 + 6 * 0.5)
    assert engine.step_s(running=600, context=0) == pytest.approx(2 * 600 / (MATRIX_SHARE * 50))
    fast = replace(case, gpu=Hardware("fast", 1e30, 1e30, 1e30, 80))
    host = STEP_S["cuda"] + 4 * SEQUENCE_S["cuda"]
    assert simulation.Engine(fast, 0.5).step_s(running=4, context=6) == pytest.approx(host)


def test_two_gpus_that_share_an_engine_read_in_half_of_the_time(simulation, case):
    assert simulation.Engine(replace(case, engine_gpus=2), 0.5).step_s(running=1, context=0) == pytest.approx(0.5)


def test_a_response_is_generated_in_segments(simulation):
    response = simulation.Response(prefix=5, left=80)
    assert response.segment(50) == simulation.Response(5, 50)
    assert response.after(50) == simulation.Response(55, 30, cached=55)
    assert response.after(50).after(50) == simulation.Response(85, 0, cached=85)


def test_a_step_continues_what_the_last_one_has_not_finished(simulation, case, monkeypatch):
    """Every fourth response has 50 tokens and the others 10. A segment has 13. A step needs 4 of 6 groups."""
    monkeypatch.setattr(type(case), "lengths", lambda *_: cycle([10, 10, 10, 50]))
    monkeypatch.setattr(simulation, "OVERSAMPLE", 0.5)
    done = simulation.steps(replace(case, responses=4, group_size=1), 4, is_partial=True)

    def prefill(tokens: int) -> float:
        return 2 * tokens / (MATRIX_SHARE * 50)

    # A long response starts in one step, with 13 tokens, and needs three more segments in the next one. In these,
    # another long one generates 39 tokens, so it needs 11 in the step after that.
    assert done[0].generation == pytest.approx(max(13, 11 + prefill(39)))
    assert done[1].generation == pytest.approx(13 + prefill(13) + 13 + 13)
    assert [step.trained for step in done] == [4] * simulation.STEPS
    assert done[0].update == pytest.approx(10 * (50 + 10 + 10 + 10) / 80)


def test_each_micro_batch_exchanges_the_weights_three_times(simulation, case):
    linked = replace(case, gpus=16, minibatches=4, model=replace(case.model, weights=50e9, active=0))  # 50 GB/s
    assert simulation.update_s([10] * 8, linked, trainers=4) == pytest.approx(4 * 3 * 0.75)
    assert simulation.update_s([10] * 8, linked, trainers=1) == 0
    # each of two GPUs has 8 * 16,384 tokens
    assert simulation.update_s([16384] * 16, linked, trainers=2) == pytest.approx(8 * 3 * 0.5)


def test_weights_of_a_split_cross_the_link_twice(simulation, case):
    linked = replace(case, gpu=replace(case.gpu, bandwidth=1e30, link=1 / 0.7))
    assert simulation.sync_s(linked, is_split=False) == pytest.approx(1 + SLEEP_S)
    assert simulation.sync_s(linked, is_split=True) == pytest.approx(2)


def test_gpus_that_share_an_engine_generate_together(simulation, case):
    assert list(simulation.split_sizes(replace(case, gpus=8, engine_gpus=2))) == [2, 4, 6]
    assert list(simulation.split_sizes(replace(case, gpus=64))) == list(range(4, 64, 4))


def test_lengths_repeat_and_end_at_the_limit(simulation, case):
    drawn = replace(case, kept=(), mean=60)
    first, second = (list(islice(drawn.lengths(random.Random(0)), 1000)) for _ in range(2))
    assert first == second
    assert max(first) == 100
    assert min(first) >= 1
