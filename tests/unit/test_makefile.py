"""What make runs on the CPU stack and on the CUDA stack, with a Python that installs nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `python -m venv FOLDER` makes a venv whose tools do nothing.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p "$3/bin"
for tool in python pip r1zero pytest; do printf '#!/bin/sh\\n' > "$3/bin/$tool"; chmod +x "$3/bin/$tool"; done
"""

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Run make as on a machine without a GPU, with its venv in `tmp_path`. Returns its output."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in {"python": PYTHON, "nvidia-smi": "#!/bin/sh\nexit 9\n"}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    make_variables = ("STACK", "VENV", "PYTHON", "UV", "WORKERS")
    # `make test` passes its own settings on to the tests.
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in make_variables and not key.startswith(("MAKE", "MFLAGS"))
    }
    environment = kept | {"PATH": f"{tools}:{os.environ['PATH']}"}

    def run(*arguments: str) -> str:
        settings = [f"VENV={tmp_path}/venv", f"PYTHON={tools}/python", "UV=", *arguments]
        done = subprocess.run(["make", "-C", ROOT, *settings], capture_output=True, text=True, env=environment)
        return done.stdout + done.stderr

    return run


@pytest.fixture
def old_file(make, tmp_path) -> Path:
    """A file in a venv of the CPU stack."""
    make("setup")
    file = tmp_path / "venv" / "old"
    file.touch()
    return file


def stamps(tmp_path: Path) -> set[str]:
    return {file.name for file in (tmp_path / "venv").glob(".*")}


@pytest.mark.parametrize(
    ("target", "on_cpu", "on_gpu"),
    [
        ("train", "r1zero train \n", "r1zero train cluster=gpu_1\n"),
        ("sweep", "r1zero train -m  algorithm", "r1zero train -m cluster=gpu_1 algorithm"),
        ("pipeline", "pipeline=r1 \n", "pipeline=r1 cluster=gpu_1\n"),
        ("check-data", "r1zero eval  model", "r1zero eval cluster=gpu_1 model"),
        ("test", "--no-loadscope-reorder\n", "--no-loadscope-reorder tests/unit\n"),
        ("chaos", "test_chaos.py", "make chaos STACK=cpu"),
        ("setup", "-r requirements-cpu.txt", "-r requirements-cuda.txt"),
    ],
)
def test_a_target_runs_on_the_cluster_of_its_stack(make, target, on_cpu, on_gpu):
    printed = {stack: make("--dry-run", target, f"STACK={stack}") for stack in ("cpu", "cuda")}
    assert on_cpu in printed["cpu"]
    assert on_gpu in printed["cuda"]
    assert "gpu" not in printed["cpu"]


def test_each_gpu_test_has_its_own_process_and_one_that_fails_stops_no_other(make, old_file, tmp_path):
    make("setup", "STACK=cuda")
    (tmp_path / "venv/bin/pytest").write_text(
        f"""#!/bin/sh
case "$*" in
  *--collect-only*) printf 'tests/gpu/a.py::one[true]\\ntests/gpu/a.py::two\\n\\n2 tests collected\\n';;
  *) echo "$*" >> {tmp_path}/ran;;
esac
case "$*" in *one*) exit 1;; esac
"""
    )
    assert "Error 1" in make("test", "STACK=cuda", "WORKERS=3")
    assert (tmp_path / "ran").read_text().splitlines() == [
        "-rs -n 3 --dist loadfile --no-loadscope-reorder tests/unit",
        "-rs tests/gpu/a.py::one[true]",
        "-rs tests/gpu/a.py::two",
    ]


@pytest.mark.parametrize("stamp", [".cpu-ready", ".cpu-begun"])  # the second without the first: it was interrupted
def test_a_venv_of_the_other_stack_is_replaced(make, old_file, tmp_path, stamp):
    for name in stamps(tmp_path) - {stamp}:
        (tmp_path / "venv" / name).unlink()
    make("setup", "STACK=cuda")
    assert not old_file.exists()
    assert stamps(tmp_path) == {".cuda-begun", ".cuda-ready"}


def test_a_venv_with_both_stacks_in_it_is_replaced(make, old_file, tmp_path):
    (tmp_path / "venv/.cuda-ready").touch()
    make("setup", "STACK=cuda")
    assert not old_file.exists()
    assert stamps(tmp_path) == {".cuda-begun", ".cuda-ready"}


def test_a_venv_of_the_same_stack_is_updated(make, old_file):
    assert "pip install" not in make("setup")
    assert "pip install" in make("setup", "--what-if=pyproject.toml")
    assert old_file.exists()


def test_a_cuda_venv_is_kept_on_a_machine_without_a_gpu(make, old_file, tmp_path):
    make("setup", "STACK=cuda")
    assert "rm " not in make("setup")
    assert "cluster=gpu_1" in make("--dry-run", "train")
    make("setup", "STACK=cpu")
    assert stamps(tmp_path) == {".cpu-begun", ".cpu-ready"}
