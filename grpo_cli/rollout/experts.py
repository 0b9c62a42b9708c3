"""New weights for the experts of a vLLM engine on a CPU."""

from torch import nn

from grpo_cli.errors import TrainingError


def forget_packed_experts(network: nn.Module) -> None:
    """Make vLLM build the kernels of experts again. On a CPU a kernel has a packed copy of the old weights."""
    for module in network.modules():
        if hasattr(getattr(module, "quant_method", None), "moe_kernel"):
            module.quant_method.moe_kernel = None


def check_experts(network: nn.Module) -> None:
    """Raise TrainingError if vLLM did not build the kernel of all experts again: their weights did not arrive."""
    for name, module in network.named_modules():
        if getattr(getattr(module, "quant_method", None), "moe_kernel", module) is None:
            raise TrainingError(
                f"vLLM did not replace the weights of the experts in {name}. Its class for this family can only load "
                "them from files: use a model of another family (docs/families.md)."
            )
