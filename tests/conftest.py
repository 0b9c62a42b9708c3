"""Fixtures of all tests."""

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.config.train import TrainConfig

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    """Handle Ctrl-C and hang-ups, which tests send: a shell ignores the first in background jobs, nohup the second."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-runs", type=int, default=3, help="runs of test_chaos.py that are killed and resumed")


@pytest.fixture(scope="session", autouse=True)
def own_account(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a separate key for signatures, not the user's, here and in the commands that tests start."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and grader cases next to the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real data, which is not part of the repository")
    return SHARED


@cache
def composed_files(command: str, chosen: tuple[str, ...]) -> DictConfig:
    return compose(command, [*chosen])


@pytest.fixture
def compose_as() -> Iterator[Callable[..., Any]]:
    """A function of a command and its overrides that returns what `r1zero <command> <overrides>` composes.

    The files, most of the time, are composed once for each choice of files. Then Hydra applies the other overrides.
    """
    register_schemas()

    def composed(command: str, *overrides: str) -> Any:
        run_dir = ["run.dir=unused"] * ("run" in get_type_hints(SCHEMAS[command]))
        parsed = OverridesParser.create().parse_overrides([*run_dir, *overrides])
        chooses = [
            bool(each.package) or each.key_or_group.startswith("hydra") or (conf_dir() / each.key_or_group).is_dir()
            for each in parsed
        ]
        files = tuple(each.input_line for each, is_choice in zip(parsed, chooses, strict=True) if is_choice)
        settings = copy.deepcopy(composed_files(command, files))
        values = [each for each, is_choice in zip(parsed, chooses, strict=True) if not is_choice]
        ConfigLoaderImpl._apply_overrides_to_config(values, settings)
        return to_typed(settings, command)

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield composed
    GlobalHydra.instance().clear()


@pytest.fixture
def compose_train(compose_as) -> Callable[..., TrainConfig]:
    """A function of overrides that returns what `r1zero train <overrides>` composes."""
    return partial(compose_as, "train")


@pytest.fixture(scope="session")
def r1zero_process() -> Callable[..., subprocess.CompletedProcess]:
    """Run the `r1zero` command as a user would, with W&B offline."""

    def run(*arguments: str, cwd: Path, timeout: float = 400) -> subprocess.CompletedProcess:
        return subprocess.run(
            [Path(sys.executable).parent / "r1zero", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "WANDB_MODE": "offline"},
            timeout=timeout,
        )

    return run
