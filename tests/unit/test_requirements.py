"""The locked requirements of each stack: they satisfy pyproject.toml and install anywhere."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIFFERENT = {"torch", "triton", "apache-tvm-ffi"}  # in both lists, with different versions


def locked(stack: str) -> dict[str, str]:
    lines = (ROOT / f"requirements-{stack}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("stack", ["cpu", "cuda"])
def test_a_list_contains_only_names_and_versions(stack):
    for line in (ROOT / f"requirements-{stack}.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+(\+cpu)?", line)


@pytest.mark.parametrize("stack", ["cpu", "cuda"])
def test_a_list_satisfies_the_projects_requirements(stack):
    extras = PROJECT["optional-dependencies"]
    versions = locked(stack)
    for text in [*PROJECT["dependencies"], *extras[stack], *extras["dev"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)], prereleases=True), text


def test_the_lists_agree_except_in_packages_that_must_differ():
    cpu, cuda = locked("cpu"), locked("cuda")
    assert {name for name in cpu.keys() & cuda.keys() if cpu[name] != cuda[name]} == DIFFERENT
    assert cpu["torch"] == f"{cuda['torch']}+cpu"


def test_the_cuda_list_has_one_release_of_the_cuda_bindings():
    # cuda-python 12 and cuda-bindings 13 would write the same files.
    cuda = locked("cuda")
    assert cuda["cuda-python"] == cuda["cuda-bindings"]


def test_pre_commit_runs_the_locked_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = (repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == f"v{locked('cpu')['ruff']}"
