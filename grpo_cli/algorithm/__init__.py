"""Policy-gradient objectives: pure functions on tensors. Each method is one combination of their options."""
