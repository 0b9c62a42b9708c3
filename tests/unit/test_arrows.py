"""Imports point in one direction, and each heavy library is imported in one file."""

import ast
import importlib
from pathlib import Path

import pytest

import grpo_cli

PACKAGE = Path(grpo_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A package (or file at the root) may import itself and packages of lower layers, and nothing else of the project.
LAYERS = [
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
    {"jsonl", "limits", "screen", "progress", "bounds", "nearest", "files", "user_functions"},
    {"value_types"},
    {"grading"},
    {"sandbox"},
    {"reward.terms"},
    {"config", "analysis"},
    {"planner", "runs"},
    {"data", "reward", "algorithm", "metrics"},
    {"model_files"},
    {"model"},
    {"rollout"},
    {"evaluation"},
    {"report"},
    {"training", "rejection"},
    {"launch", "doctor"},
    {"pipeline"},
    {"science"},
    {"commands"},
    {"cli"},
]
# Packages whose only public file is grpo_cli/<name>/__init__.py.
SEALED = ("grading", "sandbox")
ONLY_IMPORTED_IN = {
    "vllm": "rollout/vllm_engine.py",
    "deepspeed": "training/engine.py",
    "peft": "training/lora.py",
    "wandb": "metrics/wandb_run.py",
    "torch.utils.tensorboard": "metrics/tensorboard_run.py",
    "trackio": "metrics/trackio_run.py",
}


def imports(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def package_of(module: str) -> str:
    """The package or file directly in grpo_cli. reward.terms counts as its own package, since config imports it."""
    parts = module.split(".")
    return "reward.terms" if parts[1:3] == ["reward", "terms"] else parts[1]


def layer(package: str) -> int:
    return next(level for level, packages in enumerate(LAYERS) if package in packages)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_lower_layers(path):
    here = path.relative_to(PACKAGE)
    package = package_of(f"grpo_cli.{'.'.join(here.with_suffix('').parts)}")
    for module in imports(path):
        if not module.startswith("grpo_cli."):
            continue
        other = package_of(module)
        if not (PACKAGE / other.split(".")[0]).is_dir() and not (PACKAGE / f"{other}.py").is_file():
            continue  # a name in grpo_cli/__init__.py
        allowed = other == package or layer(other) < layer(package)
        assert allowed, f"{here} imports {module}"


@pytest.mark.parametrize("package", SEALED)
def test_a_sealed_package_is_used_through_its_public_page(package):
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] != package:
            inner = {module for module in imports(path) if module.startswith(f"grpo_cli.{package}.")}
            public = importlib.import_module(f"grpo_cli.{package}").__all__
            assert inner <= {f"grpo_cli.{package}.{name}" for name in public}, path


@pytest.mark.parametrize(("library", "file"), ONLY_IMPORTED_IN.items())
def test_a_heavy_library_is_imported_in_one_file(library, file):
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(f"{module}.".startswith(f"{library}.") for module in imports(path))
    }
    assert users == {file}


def test_the_algorithm_does_not_import_settings():
    for path in (PACKAGE / "algorithm").glob("*.py"):
        assert not any(module.startswith("grpo_cli.config") for module in imports(path)), path


def test_no_code_contains_the_name_of_an_algorithm():
    names = {path.stem for path in (PACKAGE.parent / "conf" / "algorithm").glob("*.yaml")}
    surrogates = {"cispo"}  # also the name of its surrogate
    for path in FILES:
        constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not constants & (names - surrogates), path
