"""Faults that the user can mend. Each message says the rule, what was seen, and what to do; no traceback is shown."""


class R1ZeroError(Exception):
    """Base of every fault that is answered in plain words."""

    exit_status = 1


class ConfigError(R1ZeroError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(R1ZeroError):
    """A data set that is missing, empty or not shaped as its configuration says."""


class SetupError(R1ZeroError):
    """Something that the machine lacks: a package, a network, a folder that can be written."""


class CheckpointError(R1ZeroError):
    """A checkpoint that cannot be written or read."""


class TrainingError(R1ZeroError):
    """A run that stopped itself, because going on would have wasted it."""


class DivergedError(TrainingError):
    """A run whose weights or gradients are not finite any more."""


class Stopped(R1ZeroError):
    """A run that was asked to stop, and has saved what it needs to go on."""

    exit_status = 143  # as of a process that SIGTERM ended
