"""Imports point one way, and each heavy library has one door."""

import ast
import importlib
from pathlib import Path

import pytest

import grpo_cli

PACKAGE = Path(grpo_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import itself, what stands on a floor below its own, and nothing else of the project.
FLOORS = [
    {
        "__init__",
        *[
            "choices",
            "errors",
            "types",
            "ranks",
            "sharing",
            "stop",
            "hardware",
            "paths",
            "printing",
            "secret",
            "signature",
        ],
    },
    {"jsonl", "limits", "screen", "bounds", "nearest", "files"},
    {"grading"},
    {"sandbox"},
    {"reward.terms"},
    {"config", "analysis"},
    {"planner", "runs"},
    {"data", "reward", "algorithm", "metrics"},
    {"model"},
    {"rollout"},
    {"evaluation"},
    {"training", "rejection"},
    {"launch", "doctor"},
    {"pipeline"},
    {"commands"},
    {"cli"},
]
# Packages of which only the page is public: grpo_cli/<name>/__init__.py.
SEALED = ("grading", "sandbox")
DOORS = {
    "vllm": "rollout/vllm_engine.py",
    "deepspeed": "training/engine.py",
    "peft": "training/lora.py",
    "wandb": "metrics/wandb_run.py",
}


def imports(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def room_of(module: str) -> str:
    """The package or file directly in grpo_cli; reward.terms is a room inside another, since config reads it."""
    parts = module.split(".")
    return "reward.terms" if parts[1:3] == ["reward", "terms"] else parts[1]


def floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = path.relative_to(PACKAGE)
    room = room_of(f"grpo_cli.{'.'.join(here.with_suffix('').parts)}")
    for module in imports(path):
        if not module.startswith("grpo_cli."):
            continue
        other = room_of(module)
        if not (PACKAGE / other.split(".")[0]).is_dir() and not (PACKAGE / f"{other}.py").is_file():
            continue  # a name in grpo_cli/__init__.py
        allowed = other == room or floor(other) < floor(room)
        assert allowed, f"{here} imports {module}"


@pytest.mark.parametrize("package", SEALED)
def test_a_sealed_package_is_used_through_its_public_page(package):
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] != package:
            inner = {module for module in imports(path) if module.startswith(f"grpo_cli.{package}.")}
            public = importlib.import_module(f"grpo_cli.{package}").__all__
            assert inner <= {f"grpo_cli.{package}.{name}" for name in public}, path


@pytest.mark.parametrize(("library", "door"), DOORS.items())
def test_a_heavy_library_has_one_door(library, door):
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users == {door}


def test_the_algorithm_knows_no_settings():
    for path in (PACKAGE / "algorithm").glob("*.py"):
        assert not any(module.startswith("grpo_cli.config") for module in imports(path)), path


def test_no_code_asks_for_an_algorithm_by_name():
    names = {path.stem for path in (PACKAGE.parent / "conf" / "algorithm").glob("*.yaml")}
    surrogates = {"cispo"}  # also the name of its surrogate
    for path in FILES:
        constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not constants & (names - surrogates), path
