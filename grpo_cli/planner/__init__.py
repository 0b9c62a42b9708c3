"""What a training run needs and how long it takes, by arithmetic on its settings alone; free of torch.

P parameters, N ranks, b bytes a value, H hidden size, A and K the widths of all query and of all key heads,
I intermediate size, V vocabulary. Everything is an estimate: each allowance and factor is a constant with its reason.
"""
