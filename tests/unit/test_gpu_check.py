"""The code around measurements on a GPU: stages, time limits, results, peaks and parts of a step."""

import json
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PRINT_FIGURE = "import json\nprint('figure: ' + json.dumps({'speed': 3.5}), flush=True)\n"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module


@pytest.fixture
def gpu_check(module):
    return module("gpu_check")


def run(gpu_check, text: str, limit_s: float = 60):
    return gpu_check.run_stage("a stage", [sys.executable, "-c", text], limit_s)


def test_a_stage_that_fails_keeps_the_figures_that_it_printed(gpu_check):
    outcome = run(gpu_check, PRINT_FIGURE + "raise ValueError('no such kernel')")
    assert outcome.figures == {"speed": 3.5}
    assert outcome.fault == "ValueError: no such kernel"
    assert "Traceback" in outcome.output[1]


def test_the_signal_that_ended_a_stage_is_named(gpu_check):
    outcome = run(gpu_check, PRINT_FIGURE + "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.figures == {"speed": 3.5}
    assert outcome.fault.startswith("ended by SIGSEGV")


def test_a_stage_out_of_time_is_stopped_with_all_its_children(gpu_check):
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    print_pid = "print('figure: ' + json.dumps(dict(pid=child.pid)), flush=True)"
    outcome = run(gpu_check, f"import json, subprocess, sys\nchild = {child}\n{print_pid}\nchild.wait()", limit_s=3)
    assert outcome.fault == "stopped after 3 s"
    pid = outcome.figures["pid"]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_failed_stage_does_not_stop_the_next(gpu_check, monkeypatch):
    monkeypatch.setattr(gpu_check, "run_stage", lambda title, *_: gpu_check.Outcome(title, 1.0, {}, "it failed"))
    assert [name for name, _ in gpu_check.outcomes(["update", "attention"], 8, tiny=True)] == ["update", "attention"]


def test_all_stages_together_stay_within_the_time_limit(gpu_check, monkeypatch):
    clock, limits = [0.0], []
    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def to_the_limit(title, command, limit_s):
        limits.append(limit_s)
        clock[0] += limit_s
        return gpu_check.Outcome(title, limit_s)

    monkeypatch.setattr(gpu_check, "run_stage", to_the_limit)
    monkeypatch.setattr(gpu_check, "find_spec", lambda _: True)
    measured = dict(gpu_check.outcomes(list(gpu_check.STAGES), 8, tiny=False))
    assert sum(limits) <= 480
    assert measured["bench"].fault == "left out: no time is left of 8 minutes"


def test_without_vllm_only_the_stages_that_need_it_are_left_out(gpu_check, monkeypatch):
    monkeypatch.setattr(gpu_check, "find_spec", lambda _: None)
    monkeypatch.setattr(gpu_check, "run_stage", lambda title, *_: gpu_check.Outcome(title, 1.0))
    measured = dict(gpu_check.outcomes(list(gpu_check.STAGES), 8, tiny=True))
    assert {name for name, outcome in measured.items() if outcome.fault} == {"doctor", "train", "generation", "bench"}


def test_stages_measured_later_on_the_same_day_are_added_to_the_table(gpu_check, tmp_path):
    first = {"attention": gpu_check.Outcome("Attention", 1.0, {"loop, ms": 2.5})}
    gpu_check.write(tmp_path, None, first)
    file = gpu_check.write(tmp_path, None, {"update": gpu_check.Outcome("Update", 9.0, {}, "out of | memory")})
    assert set(json.loads(file.read_text())["stages"]) == {"attention", "update"}
    table = file.with_suffix(".md").read_text()
    assert "| loop, ms | 2.5 |" in table
    assert "| FAILED | out of \\| memory |" in table


def test_every_stage_has_a_program(gpu_check, module):
    assert list(module("gpu_stage").STAGES) == list(gpu_check.STAGES)


def test_a_peak_between_two_calls_is_recorded(module):
    value, num_reads = [1.0], threading.Semaphore(0)

    def read() -> float:
        num_reads.release()
        return value[0]

    peak = module("relay").Peak(read)
    num_reads.acquire()  # the first read, in the constructor
    value[0] = 5.0
    num_reads.acquire()
    num_reads.acquire()  # by now the thread has read and recorded the value
    value[0] = 2.0
    assert peak.largest() == 5.0


def test_the_parts_of_a_step_do_not_wait_for_the_gpu(module, monkeypatch):
    import torch

    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("record")

        def synchronize(self):
            done.append("synchronize")

        def elapsed_time(self, end):
            return 250.0  # ms

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronize"))
    parts = module("r1zero_loop").Parts()
    for _ in range(2):
        with parts.part("engine_forward"):
            pass
    assert done == ["record"] * 4
    assert parts.take() == {"part/engine_forward": 0.5}
    assert parts.take() == {}


def test_vllms_own_benchmark_has_the_same_settings(module, monkeypatch):
    bench_gpu = module("bench_gpu")
    asked = []

    def run(command, **_):
        asked.extend(command)
        (result,) = [word.partition("=")[2] for word in command if word.startswith("--output-json")]
        Path(result).write_text(json.dumps({"elapsed_time": 2.0}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(bench_gpu.subprocess, "run", run)
    workload = bench_gpu.Workload("small", prompts=1, group_size=2, mean=8, longest=8)
    settings = ["cluster.vllm.max_num_seqs=77", "cluster.vllm.gpu_memory_utilization=0.6"]
    assert bench_gpu.vllm_speed([*bench_gpu.OVERRIDES, *settings], workload, Path("model")) == 8  # 16 tokens in 2 s
    assert {"--max-num-seqs=77", "--gpu-memory-utilization=0.6", "--dtype=bfloat16"} <= set(asked)
