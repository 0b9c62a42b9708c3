"""Ranks as a user meets them: they agree, they end together, and none is left behind."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from grpo_cli.launch.requests import SAME_S
from grpo_cli.training.checkpoint_files import whole_checkpoints

TWO_RANKS = ("train", "cluster=cpu_2rank", "logger=none", "run.dir=run", "data.num_heldout=16")


class Run:
    """A run of two ranks in `<folder>/run`, and the processes that it has started."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.family: list[psutil.Process] = []

    @property
    def printed(self) -> str:
        return (self.folder / "printed.txt").read_text()

    @property
    def steps(self) -> int:
        metrics = self.folder / "run/metrics.jsonl"
        return metrics.read_bytes().count(b"\n") - 1 if metrics.exists() else -1

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait, while the run goes on."""
        deadline = time.monotonic() + 200
        while not is_so():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline
            self.family = family(self.process) or self.family
            time.sleep(0.1)

    def saved_its_last_step(self) -> bool:
        checkpoint, *_ = whole_checkpoints(self.folder / "run")
        last = json.loads((self.folder / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
        return last > 0 and checkpoint.name == f"step_{last:06d}"


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Run]]:
    """Start a run with these settings; whatever the test leaves of it is killed."""
    runs = []

    def start(*settings: str, within: Sequence[str] = (), **options) -> Run:
        command = [*within, Path(sys.executable).parent / "r1zero", *TWO_RANKS, "steps=500", *settings]
        with (tmp_path / "printed.txt").open("w") as printed:
            options = {"stdout": printed, "stderr": printed, "cwd": tmp_path, "start_new_session": True} | options
            runs.append(Run(subprocess.Popen(command, **options), tmp_path))
        return runs[-1]

    yield start
    for run in runs:
        for member in [*run.family, *family(run.process)]:
            if member.is_running():
                member.kill()
        run.process.kill()
        run.process.wait()


@pytest.fixture
def running(start) -> Run:
    """One that is past its first step."""
    run = start()
    run.wait_until(lambda: run.steps >= 1)
    return run


def ranks_of(family: list[psutil.Process]) -> list[psutil.Process]:
    ranks = [member for member in family if "grpo_cli.launch.worker" in " ".join(member.cmdline())]
    return sorted(ranks, key=lambda rank: rank.environ().get("RANK", ""))


def left_behind(family: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(family, timeout=60)
    return [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]


def test_a_rank_that_dies_ends_all_and_is_named(running):
    ranks = ranks_of(running.family)
    assert len(ranks) == 2
    ranks[1].kill()
    assert running.process.wait(timeout=60) == 1
    assert "Rank 1 was killed by SIGKILL, as Linux does when memory runs out" in running.printed
    assert left_behind(running.family) == []


def test_a_launcher_that_is_killed_takes_its_ranks_along(running):
    running.process.kill()
    assert left_behind(running.family) == []


def test_a_run_has_one_writer_which_saves_its_step_when_it_is_asked_to_stop(running, r1zero):
    before = (running.folder / "run/config.yaml").read_text()
    second = r1zero(*TWO_RANKS, "steps=600", "resume=auto", cwd=running.folder)
    assert second.returncode == 1
    assert "run is in use by another start of it (process" in second.stderr
    assert (running.folder / "run/config.yaml").read_text() == before
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=120) == 128 + signal.SIGINT
    assert running.saved_its_last_step()
    assert "Stopped as asked after step" in running.printed
    assert "resume=auto goes on" in running.printed
    assert "Traceback" not in running.printed
    assert left_behind(running.family) == []


def test_a_signal_to_all_processes_still_saves_the_step(start):
    run = start("logger=wandb", "logger.mode=offline")
    run.wait_until(lambda: run.steps >= 1)
    for member in [psutil.Process(run.process.pid), *run.family]:  # as systemd stops a service
        with suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGTERM)
    assert run.process.wait(timeout=120) == 128 + signal.SIGTERM
    assert run.saved_its_last_step()
    assert "Traceback" not in run.printed
    assert left_behind(run.family) == []


def test_a_terminal_that_closes_lets_the_step_be_saved(start):
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    run = start(
        "logger=console",  # which prints at each step
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)

    def is_in_a_step() -> bool:
        with suppress(BlockingIOError):
            os.read(ours, 2**16)  # else the terminal is full some time
        return run.steps >= 1

    run.wait_until(is_in_a_step)
    os.close(ours)
    assert run.process.wait(timeout=120) == 128 + signal.SIGHUP
    assert run.saved_its_last_step()
    assert left_behind(run.family) == []


def test_a_run_under_nohup_goes_on_without_its_terminal(start):
    run = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    run.wait_until(lambda: run.steps >= 1)
    for member in [psutil.Process(run.process.pid), *ranks_of(run.family)]:
        member.send_signal(signal.SIGHUP)
    seen = run.steps
    run.wait_until(lambda: run.steps >= seen + 3)  # it would have stopped after one
    run.process.terminate()
    assert run.process.wait(timeout=120) == 128 + signal.SIGTERM
    assert run.saved_its_last_step()


def test_a_second_request_does_not_wait_for_the_step(running):
    ranks = ranks_of(running.family)
    for rank in ranks:
        rank.suspend()  # a step without end
    running.process.send_signal(signal.SIGINT)
    running.wait_until(lambda: "A second one ends it at once" in running.printed)
    time.sleep(SAME_S)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=60) == 128 + signal.SIGINT
    assert left_behind(running.family) == []


def test_a_run_that_is_starting_ends_at_once(start):
    run = start()
    run.wait_until(lambda: len(ranks_of(run.family)) == 2)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=60) == 128 + signal.SIGINT
    assert run.steps == -1
    assert "Stopped by SIGINT" in run.printed
    assert "Traceback" not in run.printed
    assert left_behind(run.family) == []


def test_a_machine_whose_name_does_not_resolve_runs_all_the_same(start):
    within = ("unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs unshare, and root, to change the host name")
    run = start(within=within)
    run.wait_until(lambda: run.steps >= 1)


def test_a_rewards_function_that_leaves_is_named_though_another_is_stuck(tmp_path, start):
    (tmp_path / "my_rewards.py").write_text(
        "import sys, time\n"
        "def stuck(completion, problem): time.sleep(10_000)\n"
        "def gone(completion, problem): sys.exit('no more')\n"
    )
    terms = [f"reward.terms.{name}.function=my_rewards:{name}" for name in ("gone", "stuck")]
    run = start(*terms, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert run.process.wait(timeout=200) == 1
    assert "reward.terms.gone tried to end the process: SystemExit(no more) at " in run.printed


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
