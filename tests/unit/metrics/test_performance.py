"""The perf/ metrics of a step, worked by hand."""

import sys

import pytest

from grpo_cli.config.model import ShapeConfig
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import (
    Peak,
    find_peak,
    peak_memory_gib,
    performance,
    tally_busy,
    tally_trained,
)

SHAPE = ShapeConfig(2, 8, 16, 2, 2, 4, 32, True, 64)  # 2 layers of 4 * 8 * 8 + 3 * 8 * 16 = 640 weights
TIMES = {"time/rollout": 4.0, "time/update": 5.0, "time/step": 20.0, "time/eval": 10.0}


def trained(*lengths: tuple[int, int], epochs: int = 1) -> Tally:
    tally = Tally()
    tally_trained(tally, lengths, epochs)
    return tally


def test_each_speed_uses_the_time_of_its_own_phase():
    metrics = performance({"rollout/tokens": 80.0} | TIMES | trained((3, 7), (5, 15), epochs=2).compute())
    assert metrics["perf/tokens_per_s"] == 80 / 10  # the step without its evaluation
    assert metrics["perf/generation_tokens_per_s"] == 80 / 4
    assert metrics["perf/training_tokens_per_s"] == 2 * 30 / 5
    assert "perf/mfu" not in metrics


def test_mfu_counts_forward_and_backward_passes_of_all_ranks_once():
    tally = trained((3, 7)).merge(trained((5, 15)))  # two ranks
    metrics = performance(TIMES | tally.compute(), Peak(flops=1e6, shape=SHAPE, has_adapters=False))
    weights, output, attention = 2 * 640 * 30, 8 * 32 * 22, 2 * 8 * (10**2 + 20**2)
    assert metrics["perf/mfu"] == pytest.approx(6 * (weights + output + attention) / 5 / 1e6)


def test_internal_counts_are_not_metrics():
    tally = trained((3, 7))
    tally_busy(tally, 0, 1.0)
    metrics = performance(TIMES | tally.compute())
    assert set(metrics) == {*TIMES, "perf/trained_tokens", "perf/training_tokens_per_s"}


def test_a_supervised_step_has_no_generation():
    metrics = performance(TIMES | trained((1, 1)).compute())
    assert not metrics.keys() & {"perf/tokens_per_s", "perf/generation_tokens_per_s"}


def test_idle_share_is_the_time_that_a_rank_waits_for_the_busiest():
    tallies = [trained((3, 7)) for _ in range(4)]
    for rank, seconds in enumerate([4.0, 1.0, 2.0, 3.0]):
        tally_busy(tallies[rank], rank, seconds / 2)
        tally_busy(tallies[rank], rank, seconds / 2)  # in two parts
    merged = Tally()
    for tally in tallies:
        merged = merged.merge(tally)
    metrics = performance(TIMES | merged.compute())
    assert [metrics[f"perf/idle_share/{rank}"] for rank in range(4)] == [0.0, 0.75, 0.5, 0.25]
    assert metrics["perf/idle_share"] == 0.375


@pytest.mark.parametrize("seconds", [[1.0], [0.0, 0.0]])
def test_a_single_rank_and_ranks_without_work_have_no_idle_share(seconds):
    tally = trained((3, 7))
    for rank, busy in enumerate(seconds):
        tally_busy(tally, rank, busy)
    assert not any("idle" in name for name in performance(TIMES | tally.compute()))


def test_a_cpu_has_no_peak(compose_train, tmp_path):
    assert find_peak(tmp_path, compose_train()) is None


def test_the_peak_is_summed_over_all_gpus(compose_train, monkeypatch):
    import torch

    from grpo_cli.data import make_zero

    config = compose_train("experiment=oat_zero_7b")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    peak = find_peak(make_zero.base_model_dir(), config)
    assert (peak.flops, peak.shape.vocab_size) == (8 * 989e12, 180)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an unknown GPU")
    assert find_peak(make_zero.base_model_dir(), config) is None


def test_a_model_of_unknown_shape_has_no_mfu(compose_train, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    (tmp_path / "config.json").write_text('{"n_embd": 768}')
    assert find_peak(tmp_path, compose_train("experiment=oat_zero_7b")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_memory_on_a_cpu_includes_what_the_process_allocated():
    memory = bytearray(2**28)
    memory[::4096] = b"1" * (2**28 // 4096)
    assert peak_memory_gib() > 0.25


def test_the_peak_memory_of_a_gpu_is_what_is_used_now_and_what_was_freed(monkeypatch):
    import torch

    gib, resets = 2**30, []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (50 * gib, 80 * gib))
    # both include 40 GiB of a sleeping vLLM, which has freed them
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 65 * gib)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 60 * gib)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(True))
    assert peak_memory_gib() == 35
    assert resets
