"""The environment of a rank."""

import os
from pathlib import Path

import pytest

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.launch.worker import _set_environment, resume_hint


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    monkeypatch.setattr(os, "environ", {"LOCAL_WORLD_SIZE": "1"})
    return os.environ


@pytest.mark.parametrize("device", Device)
def test_threads_do_not_spin_and_vllm_sends_no_statistics(environment, device):
    _set_environment(ClusterConfig(device=device), verbose=False)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


def test_variables_that_the_user_has_set_stay(environment):
    given = {"OMP_WAIT_POLICY": "ACTIVE", "VLLM_NO_USAGE_STATS": "0", "DO_NOT_TRACK": "0"}
    environment |= given
    _set_environment(ClusterConfig(device=Device.cuda), verbose=False)
    assert environment | given == environment


def test_the_hint_after_a_stop_names_the_run_folder():
    assert resume_hint("train", Path("runs/a")) == "To resume it: r1zero train resume=runs/a"
    assert resume_hint("eval", Path("runs/a b/eval")).endswith("""run the same command with 'run.dir="runs/a b"'""")
