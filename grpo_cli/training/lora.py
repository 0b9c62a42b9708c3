"""Low-rank adapters (arXiv:2106.09685): W + alpha/rank * B A, where only A and B are trained.

The only module that imports peft.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from grpo_cli.config.model import LoraConfig
from grpo_cli.errors import ConfigError

ADAPTER = "default"


def add_adapters(network: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Add adapters to linear layers of `network`, in place, and freeze everything else.

    B starts at 0, so the model's output does not change.
    """
    head = network.get_output_embeddings()
    adaptable = [n for n, m in network.named_modules() if isinstance(m, nn.Linear) and m is not head]
    for target in lora.target_modules:
        if not any(f".{name}".endswith(f".{target}") for name in adaptable):
            names = ", ".join(dict.fromkeys(name.rsplit(".")[-1] for name in adaptable))
            raise ConfigError(
                f"model.lora.target_modules={list(lora.target_modules)}: {target} is not a linear layer that "
                f"can be adapted in this model. Choose from {names}, or leave it empty for all of them."
            )
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules) or "all-linear"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # A is random: make it the same on every rank and in every run with this seed
        peft.inject_adapter_in_model(settings, network, ADAPTER)


def named_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (Hugging Face name, module) of every module. An adapted layer counts as one module, without its parts."""
    parts = {part for layer in _adapted(network) for part in layer.modules() if part is not layer}
    return ((name, module) for name, module in network.named_modules() if module not in parts)


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that `merged_weights` reads."""
    return list(module.parameters(recurse=isinstance(module, LoraLayer)))


@torch.no_grad()
def merged_weights(module: nn.Module) -> dict[str, Tensor]:
    """{name: weight} of the module without its submodules. An adapter is merged into a new tensor."""
    if not isinstance(module, LoraLayer):
        return {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}
    weights = merged_weights(module.get_base_layer())
    return weights | {"weight": weights["weight"] + module.get_delta_weight(ADAPTER)}


def load_merged(
    folder: Path, adapters: Mapping[str, Tensor], lora: LoraConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """{Hugging Face name: tensor} of every weight of the model in `folder`, with trained adapters merged."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    add_adapters(network, lora, seed=0)
    missing, _ = network.load_state_dict(adapters, strict=False)
    assert not any("lora_" in name for name in missing), missing
    return {
        f"{module_name}.{name}": weight
        for module_name, module in named_layers(network)
        for name, weight in merged_weights(module).items()
    }


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """A context in which the network is the base model."""
    layers = list(_adapted(network))
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _adapted(network: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in network.modules() if isinstance(module, LoraLayer))
