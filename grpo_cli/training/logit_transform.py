"""What some families of models apply to the logits of their output layer."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig


@dataclass(frozen=True)
class LogitTransform:
    """What a model applies to the logits of its output layer: cap * tanh(scale * logits / cap)."""

    scale: float = 1.0
    cap: float | None = None  # Gemma 2's soft cap; None: no tanh

    def __call__(self, logits_NV: Tensor) -> Tensor:
        if self.scale != 1:
            logits_NV = logits_NV * self.scale
        return logits_NV if self.cap is None else self.cap * torch.tanh(logits_NV / self.cap)

    def derivative(self, transformed_NV: Tensor) -> Tensor | float:
        """The derivative of the transformed logits with respect to the logits."""
        return self.scale if self.cap is None else self.scale * (1 - (transformed_NV / self.cap) ** 2)


NO_TRANSFORM = LogitTransform()


def logit_transform(config: PretrainedConfig) -> LogitTransform:
    """A model's transform, from the names that families use for it in config.json."""
    config = config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0  # Falcon-H1
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    return LogitTransform(scale, getattr(config, "final_logit_softcapping", None))
