"""transformers' own class of a model, kept as it is next to vLLM.

For families without an implementation in vLLM its Transformers backend changes the class of the decoder: bases,
`__init__` and `__call__`. The trainer in the same process uses that class too, and could not even build its model.
"""

from pathlib import Path

from torch import nn
from transformers import MODEL_MAPPING, AutoConfig


class ClassSnapshot:
    """The class of the decoder of the model in `folder`, as it was before vLLM was started."""

    def __init__(self, folder: Path) -> None:
        # A class of another file, as of a multimodal model's text part, is none that the trainer uses.
        self._decoder = MODEL_MAPPING.get(type(AutoConfig.from_pretrained(folder, trust_remote_code=False)), nn.Module)
        self._bases = self._decoder.__bases__
        self._attributes = dict(vars(self._decoder))

    def restore(self, model: nn.Module) -> None:
        """Move what was changed since then into a subclass, which only the modules of vLLM's `model` have."""
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
        of_vllm = type(self._decoder.__name__, (self._decoder, *added_bases), changed)
        for module in model.modules():
            if type(module) is self._decoder:
                module.__class__ = of_vllm
