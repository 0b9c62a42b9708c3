"""Undoes vLLM's changes to a model class of transformers.

For families that vLLM does not implement itself, its Transformers backend changes the class of the decoder: bases,
`__init__` and `__call__`. The trainer in the same process uses that class too, and could not even build its model.
"""

from pathlib import Path

from torch import nn
from transformers import MODEL_MAPPING, AutoConfig


class ClassSnapshot:
    """The decoder class of the model in `folder`, as it is before vLLM starts."""

    def __init__(self, folder: Path) -> None:
        # If the config class has no entry (the text part of a multimodal model), the trainer uses no such class.
        self._decoder = MODEL_MAPPING.get(type(AutoConfig.from_pretrained(folder, trust_remote_code=False)), nn.Module)
        self._bases = self._decoder.__bases__
        self._attributes = dict(vars(self._decoder))

    def restore(self, model: nn.Module) -> None:
        """Move the changes into a subclass that only the modules of vLLM's `model` use."""
        added_bases = tuple(base for base in self._decoder.__bases__ if base not in self._bases)
        if not added_bases:
            return
        changed = {
            name: value for name, value in vars(self._decoder).items() if value is not self._attributes.get(name)
        }
        for name in changed:
            if name in self._attributes:
                setattr(self._decoder, name, self._attributes[name])
            else:
                delattr(self._decoder, name)
        self._decoder.__bases__ = self._bases
        vllm_class = type(self._decoder.__name__, (self._decoder, *added_bases), changed)
        for module in model.modules():
            if type(module) is self._decoder:
                module.__class__ = vllm_class
