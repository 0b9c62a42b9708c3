"""Estimates of what a training run needs and how long it takes, computed from its settings without torch.

P parameters, N ranks, b bytes per value, H hidden size, A and K the widths of all query and of all key heads,
I intermediate size, V vocabulary. Each allowance and factor is a constant with its reason.
"""
