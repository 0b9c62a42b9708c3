"""Ranks as a user meets them: they agree, they end together, and none is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from grpo_cli.training.checkpoint_files import whole_checkpoints

TWO_RANKS = ("train", "cluster=cpu_2rank", "logger=none", "run.dir=run", "data.num_heldout=16")


@pytest.fixture
def running(tmp_path):
    """A run of two ranks that is past its first step; whatever the test leaves of it is killed."""
    with (tmp_path / "printed.txt").open("w") as printed:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "r1zero", *TWO_RANKS, "steps=500"],
            stdout=printed,
            stderr=printed,
            cwd=tmp_path,
            start_new_session=True,
        )
    deadline = time.monotonic() + 200
    metrics = tmp_path / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, (tmp_path / "printed.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    yield process, family, tmp_path
    for member in [*family, psutil.Process(process.pid)] if process.poll() is None else family:
        if member.is_running():
            member.kill()


def ranks_of(family: list[psutil.Process]) -> list[psutil.Process]:
    ranks = [member for member in family if "grpo_cli.launch.worker" in " ".join(member.cmdline())]
    return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


def left_behind(family: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(family, timeout=timeout_s)
    return [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]


def test_a_rank_that_dies_ends_all_and_is_named(running):
    process, family, folder = running
    ranks = ranks_of(family)
    assert len(ranks) == 2
    ranks[1].kill()
    assert process.wait(timeout=30) == 1
    assert "Rank 1 ended with exit code -9" in (folder / "printed.txt").read_text()
    assert left_behind(family, timeout_s=10) == []


def test_a_launcher_that_is_killed_takes_its_ranks_along(running):
    process, family, _ = running
    process.kill()
    assert left_behind(family, timeout_s=30) == []


def test_ctrl_c_ends_all_and_says_how_to_go_on(running):
    process, family, folder = running
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=45) == 130
    printed = (folder / "printed.txt").read_text()
    assert "Traceback" not in printed
    assert "resume=auto" in printed
    assert left_behind(family, timeout_s=10) == []


def test_a_run_has_one_writer_which_saves_its_step_when_it_is_asked_to_stop(running, r1zero):
    process, family, folder = running
    before = (folder / "run/config.yaml").read_text()
    second = r1zero(*TWO_RANKS, "steps=600", "resume=auto", cwd=folder)
    assert second.returncode == 1
    assert "run is in use by another start of it (process" in second.stderr
    assert (folder / "run/config.yaml").read_text() == before
    process.terminate()
    assert process.wait(timeout=60) == 143
    checkpoint, *_ = whole_checkpoints(folder / "run")
    last = json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert checkpoint.name == f"step_{last:06d}"
    printed = (folder / "printed.txt").read_text()
    assert f"Stopped as asked after step {last}, which is saved" in printed
    assert "Traceback" not in printed
    assert left_behind(family, timeout_s=10) == []


def test_a_second_request_does_not_wait_for_the_step(running):
    process, family, _ = running
    ranks = ranks_of(family)
    for rank in ranks:
        rank.suspend()  # a step without end
    process.terminate()
    time.sleep(1)
    process.terminate()
    time.sleep(1)
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):  # it was ended already
            rank.resume()
    assert process.wait(timeout=45) == 128 + signal.SIGTERM
    assert left_behind(family, timeout_s=10) == []


@pytest.mark.parametrize("sharing", [1, 2], ids=["an engine each", "a shared engine"])
def test_two_sharded_ranks_train_on_what_vllm_sampled(tmp_path, r1zero, sharing):
    tensor_parallel = f"cluster.vllm.tensor_parallel_size={sharing}"
    result = r1zero(*TWO_RANKS, tensor_parallel, "steps=8", "eval.every_steps=0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(9))
    assert max(row["sampler/logprob_diff_max"] for row in rows[1:]) <= 1e-3  # after every sync


def test_a_shared_engine_starts_next_to_another_and_leaves_no_shared_memory(tmp_path, r1zero):
    vllms_own = Path("/dev/shm/-tp:0-[0-1]-cpushm_0")  # what a run that uses vLLM's names holds while it runs
    before = {vllms_own.name, *(file.name for file in Path("/dev/shm").iterdir())}
    vllms_own.touch()
    try:
        shared = ("cluster.vllm.tensor_parallel_size=2", "steps=1", "eval.every_steps=0")
        result = r1zero(*TWO_RANKS, *shared, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert [f.name for f in Path("/dev/shm").iterdir() if "cpushm" in f.name and f.name not in before] == []
    finally:
        vllms_own.unlink(missing_ok=True)
