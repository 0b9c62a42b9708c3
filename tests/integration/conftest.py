"""The real engines on the built-in model. All tests of this process share one process group and one vLLM engine."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig, VLLMConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.train import TrainConfig


def free_port() -> int:
    """A free port below those that the kernel assigns: ranks listen on it seconds later, while other tests run."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def unused_port():
    return free_port


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory) -> Iterator[Callable[..., list[subprocess.CompletedProcess]]]:
    """Ask tests/preloaded.py, in whose processes nothing needs to be imported: one run for each of `environments`.

    Threads that ask at the same time wait for each other.
    """
    lock = Lock()
    command = [sys.executable, Path(__file__).parents[1] / "preloaded.py"]
    folder = tmp_path_factory.mktemp("preloaded")
    log = folder / "server.txt"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with log.open("w") as errors, subprocess.Popen(command, **pipes, stderr=errors, text=True) as server:

        def ask(run: str, environments: list[dict[str, str]], *, cwd: Path, timeout: float, **arguments: Any):
            files = {name: folder / name for name in ("stdout", "stderr")}
            request = {name: f"{file}" for name, file in files.items()} | {"cwd": f"{cwd}", "timeout": int(timeout)}
            request |= {"run": run, "environments": environments, "arguments": arguments}
            with lock:
                for file in files.values():
                    file.write_text("")
                print(json.dumps(request), file=server.stdin, flush=True)
                answer = server.stdout.readline()
                assert answer, log.read_text()
                output = [file.read_text(errors="replace") for file in files.values()]
            return [subprocess.CompletedProcess([run, arguments], status, *output) for status in json.loads(answer)]

        yield ask
        server.stdin.close()


@pytest.fixture(scope="session")
def r1zero(preloaded) -> Callable[..., subprocess.CompletedProcess]:
    """Run the `r1zero` command with W&B offline, without the seconds of its imports."""

    def run(*arguments: str, cwd: Path, timeout: float = 400) -> subprocess.CompletedProcess:
        environment = os.environ | {"WANDB_MODE": "offline"}
        (result,) = preloaded("command", [environment], arguments=arguments, cwd=cwd, timeout=timeout)
        return result

    return run


@pytest.fixture(scope="session")
def run_on_ranks(preloaded) -> Callable[..., None]:
    """Run a Python text with its arguments on `num_ranks` ranks with one thread each."""

    def run(text: str, *arguments: str, num_ranks: int) -> None:
        shared = {"WORLD_SIZE": f"{num_ranks}", "LOCAL_WORLD_SIZE": f"{num_ranks}", "OMP_NUM_THREADS": "1"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}", "DS_ACCELERATOR": "cpu"}
        environments = [os.environ | shared | {"RANK": f"{n}", "LOCAL_RANK": f"{n}"} for n in range(num_ranks)]
        for done in preloaded("program", environments, text=text, arguments=arguments, cwd=Path.cwd(), timeout=400):
            assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def config() -> TrainConfig:
    """A run of the built-in task in fp32 in this process."""
    config = TrainConfig(model=ModelConfig(name="tiny", path="builtin:make_zero"))
    config.cluster = ClusterConfig(
        dtype=DType.fp32,
        gradient_checkpointing=False,
        tokens_per_microbatch=4096,
        vllm=VLLMConfig(enforce_eager=True),
    )
    config.optimizer.lr = 1e-3
    config.rollout.max_prompt_tokens = 16
    config.rollout.max_new_tokens = 64
    return config


@pytest.fixture(scope="session")
def ranks() -> None:
    """Make this process the only rank, as the launcher would."""
    os.environ.update(
        RANK="0",
        WORLD_SIZE="1",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_LOGGING_LEVEL="ERROR",
        DS_ACCELERATOR="cpu",
        TOKENIZERS_PARALLELISM="false",
    )
    from grpo_cli.training.engine import init_distributed

    init_distributed(ClusterConfig())


@pytest.fixture
def model(config):
    from grpo_cli.model import load_base_model

    return load_base_model(config.model, needed_len=80)


@pytest.fixture(scope="session")
def new_engine(ranks):
    """Create a vLLM engine for a model."""
    from grpo_cli.rollout.vllm_engine import RolloutEngine

    return lambda model: RolloutEngine(model, ClusterConfig(dtype=DType.fp32, vllm=VLLMConfig(enforce_eager=True)))


@pytest.fixture(scope="session")
def rollout_engine(new_engine):
    """The shared engine with the built-in model."""
    from grpo_cli.model import load_base_model

    return new_engine(load_base_model(ModelConfig(name="tiny", path="builtin:make_zero"), needed_len=144))
