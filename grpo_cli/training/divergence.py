"""Detects from a step's metrics whether training has diverged."""

import math
from collections.abc import Mapping

# Far above the values of any healthy run. The gradient norm is measured before it is clipped.
LIMITS = {
    "policy/grad_norm": 1e4,
    "policy/entropy": 20.0,  # nats per token; the uniform distribution over 150,000 tokens has 12
    "policy/kl_ref": 1e3,  # nats per token
    "policy/loss": math.inf,  # its size depends on algorithm.weighting
}


def divergence(metrics: Mapping[str, float]) -> str | None:
    """Why a step's metrics show that the weights exploded or are not finite, or None."""
    for name, limit in LIMITS.items():
        value = metrics.get(name, 0.0)
        if not abs(value) < limit:
            return f"{name} is {value:g}"
    if skipped := metrics.get("policy/skipped_steps", 0):
        return f"the gradient of {skipped:g} optimizer steps was not finite"
    return None
