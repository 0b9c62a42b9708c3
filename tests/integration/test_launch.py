"""Ranks of real runs: they agree, they end together, and no process is left running."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from grpo_cli.launch.requests import SAME_REQUEST_S
from grpo_cli.runs.resume import whole_checkpoints

TWO_RANKS = ("train", "cluster=cpu_2rank", "logger=none", "run.dir=run", "data.num_heldout=16")
ONE_RANK = ("cluster.ranks=1", "cluster.zero_stage=0")  # enough for what the launcher does with each rank


class Run:
    """A run in `<folder>/run`, and its child processes."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.children: list[psutil.Process] = []

    @property
    def printed(self) -> str:
        return (self.folder / "printed.txt").read_text()

    @property
    def steps(self) -> int:
        metrics = self.folder / "run/metrics.jsonl"
        return metrics.read_bytes().count(b"\n") - 1 if metrics.exists() else -1

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Fails if the run ends before."""
        deadline = time.monotonic() + 200
        while not condition():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline
            self.children = children(self.process) or self.children
            time.sleep(0.1)

    def saved_last_step(self) -> bool:
        checkpoint, *_ = whole_checkpoints(self.folder / "run")
        last = json.loads((self.folder / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
        return last > 0 and checkpoint.name == f"step_{last:06d}"


def children(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Run]]:
    """Start a run of two ranks with these settings. Its processes are killed after the test."""
    runs = []

    def start(*settings: str, wrapper: Sequence[str] = (), **options) -> Run:
        command = [*wrapper, Path(sys.executable).parent / "r1zero", *TWO_RANKS, "steps=500", *settings]
        with (tmp_path / "printed.txt").open("w") as printed:
            options = {"stdout": printed, "stderr": printed, "cwd": tmp_path, "start_new_session": True} | options
            runs.append(Run(subprocess.Popen(command, **options), tmp_path))
        return runs[-1]

    yield start
    for run in runs:
        for child in [*run.children, *children(run.process)]:
            if child.is_running():
                child.kill()
        run.process.kill()
        run.process.wait()


@pytest.fixture
def running(start) -> Run:
    """A run of two ranks after its first step."""
    run = start()
    run.wait_until(lambda: run.steps >= 1)
    return run


@pytest.fixture
def running_alone(start) -> Run:
    """A run of one rank after its first step."""
    run = start(*ONE_RANK)
    run.wait_until(lambda: run.steps >= 1)
    return run


def ranks_of(children: list[psutil.Process]) -> list[psutil.Process]:
    ranks = [child for child in children if "grpo_cli.launch.worker" in " ".join(child.cmdline())]
    return sorted(ranks, key=lambda rank: rank.environ().get("RANK", ""))


def still_running(children: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(children, timeout=60)
    return [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_a_rank_that_dies_ends_all_ranks_and_is_named(running):
    ranks = ranks_of(running.children)
    assert len(ranks) == 2
    ranks[1].kill()
    assert running.process.wait(timeout=60) == 1
    assert "Rank 1 was killed by SIGKILL, as Linux does when memory runs out" in running.printed
    assert still_running(running.children) == []


def test_ranks_end_when_their_launcher_is_killed(running_alone):
    running_alone.process.kill()
    assert still_running(running_alone.children) == []


def test_a_run_has_one_writer_which_saves_its_step_on_a_request_to_stop(running, r1zero):
    before = (running.folder / "run/config.yaml").read_text()
    second = r1zero(*TWO_RANKS, "steps=600", "resume=auto", cwd=running.folder)
    assert second.returncode == 1
    assert "run is in use (process" in second.stderr
    assert (running.folder / "run/config.yaml").read_text() == before
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=120) == 128 + signal.SIGINT
    assert running.saved_last_step()
    assert "Stopped on request after step" in running.printed
    assert "To resume it: r1zero train resume=run\n" in running.printed
    assert "Traceback" not in running.printed
    assert still_running(running.children) == []


def test_a_signal_to_all_processes_still_saves_the_step(start):
    run = start(*ONE_RANK, "logger=wandb", "logger.mode=offline")
    run.wait_until(lambda: run.steps >= 1)
    for process in [psutil.Process(run.process.pid), *run.children]:  # as systemd stops a service
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    assert run.process.wait(timeout=120) == 128 + signal.SIGTERM
    assert run.saved_last_step()
    assert "Traceback" not in run.printed
    assert still_running(run.children) == []


def test_a_run_saves_its_step_when_its_terminal_is_closed(start):
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    run = start(
        *ONE_RANK,
        "logger=console",  # prints at each step
        wrapper=("setsid", "--ctty"),
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=False,  # setsid starts it
    )
    os.close(theirs)

    def is_in_a_step() -> bool:
        with suppress(BlockingIOError):
            os.read(ours, 2**16)  # otherwise the terminal's buffer fills up
        return run.steps >= 1

    run.wait_until(is_in_a_step)
    os.close(ours)
    assert run.process.wait(timeout=120) == 128 + signal.SIGHUP
    assert run.saved_last_step()
    assert still_running(run.children) == []


def test_a_run_under_nohup_continues_without_its_terminal(start):
    run = start(*ONE_RANK, wrapper=("nohup",))
    run.wait_until(lambda: run.steps >= 1)
    for process in [psutil.Process(run.process.pid), *ranks_of(run.children)]:
        process.send_signal(signal.SIGHUP)
    steps_before = run.steps
    run.wait_until(lambda: run.steps >= steps_before + 3)  # otherwise it would stop after one step
    run.process.terminate()
    assert run.process.wait(timeout=120) == 128 + signal.SIGTERM
    assert run.saved_last_step()


def test_a_second_request_does_not_wait_for_the_step(running_alone):
    run = running_alone
    for rank in ranks_of(run.children):
        rank.suspend()  # a step without end
    run.process.send_signal(signal.SIGINT)
    run.wait_until(lambda: "A second SIGINT ends it immediately" in run.printed)
    time.sleep(SAME_REQUEST_S)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=60) == 128 + signal.SIGINT
    assert still_running(run.children) == []


def test_a_run_that_is_starting_ends_immediately(start):
    run = start()
    run.wait_until(lambda: len(ranks_of(run.children)) == 2)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=60) == 128 + signal.SIGINT
    assert run.steps == -1
    assert "Stopped by SIGINT" in run.printed
    assert "Traceback" not in run.printed
    assert still_running(run.children) == []


def test_a_run_works_on_a_machine_whose_name_does_not_resolve(start):
    wrapper = ("unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs unshare, and root, to change the host name")
    run = start(wrapper=wrapper)
    run.wait_until(lambda: run.steps >= 1)


def test_a_reward_function_that_exits_is_named_although_another_is_stuck(tmp_path, start):
    (tmp_path / "my_rewards.py").write_text(
        "import sys, time\n"
        "def stuck(completion, problem): time.sleep(10_000)\n"
        "def gone(completion, problem): sys.exit('no more')\n"
    )
    terms = [f"reward.terms.{name}.function=my_rewards:{name}" for name in ("gone", "stuck")]
    run = start(*ONE_RANK, *terms, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert run.process.wait(timeout=200) == 1
    assert "reward.terms.gone tried to end the process, for a response to problem " in run.printed
    assert "SystemExit: no more\nThe response: " in run.printed


@pytest.fixture
def file_of_another_run() -> Iterator[Path]:
    """The shared memory of a running process that uses vLLM with its default names."""
    file = Path("/dev/shm/-tp:0-[0-1]-cpushm_0")
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("sharing", [1, 2], ids=["an engine each", "a shared engine"])
def test_two_sharded_ranks_train_on_what_vllm_sampled(tmp_path, r1zero, sharing, file_of_another_run):
    before = set(Path("/dev/shm").iterdir())
    tensor_parallel = f"cluster.vllm.tensor_parallel_size={sharing}"
    result = r1zero(*TWO_RANKS, tensor_parallel, "steps=3", "eval.every_steps=0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(4))
    assert max(row["sampler/logprob_diff_max"] for row in rows[1:]) <= 1e-3  # after every sync
    assert [file.name for file in set(Path("/dev/shm").iterdir()) - before if "cpushm" in file.name] == []
