"""Whether a step was that of weights that can still learn."""

import math
from collections.abc import Mapping

# What no sound run comes near; a gradient is clipped to optimizer.max_grad_norm, whatever its own norm.
LIMITS = {
    "policy/grad_norm": 1e4,
    "policy/entropy": 20.0,  # nats a token: the uniform distribution over 150,000 tokens has 12
    "policy/kl_ref": 1e3,  # nats a token
    "policy/loss": math.inf,  # its size depends on algorithm.weighting
}


def divergence(metrics: Mapping[str, float]) -> str | None:
    """What in the metrics of a step shows weights that exploded or are not finite, or None."""
    for name, limit in LIMITS.items():
        value = metrics.get(name, 0.0)
        if not abs(value) < limit:
            return f"{name} is {value:g}"
    if skipped := metrics.get("policy/skipped_steps", 0):
        return f"the gradient of {skipped:g} optimizer steps was not finite"
    return None
