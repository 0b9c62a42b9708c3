"""Errors that the user can fix. Each message says the rule, what was seen, and what to do; no traceback is shown."""

from collections.abc import Sequence


class R1ZeroError(Exception):
    """Base class: r1zero prints the message alone and exits with `exit_status`."""

    exit_status = 1


class ConfigError(R1ZeroError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(R1ZeroError):
    """A data set that is missing, empty or not in the format that its settings say."""


class SetupError(R1ZeroError):
    """Something that the machine lacks: a package, a network, a writable folder."""


class CheckpointError(R1ZeroError):
    """A checkpoint that cannot be written or read."""


class TrainingError(R1ZeroError):
    """A run that stopped itself, because continuing would be useless."""


class DivergedError(TrainingError):
    """A run whose weights or gradients are no longer finite."""


class Stopped(R1ZeroError):
    """A run that was asked to stop, and has saved a checkpoint."""

    exit_status = 143  # as of a process that SIGTERM ended


def raise_if_any(faults: Sequence[str]) -> None:
    """Raise one ConfigError that lists the faults, if there are any."""
    if faults:
        count = "This setting" if len(faults) == 1 else f"These {len(faults)} settings"
        raise ConfigError(f"{count} cannot work:\n" + "\n".join(f"- {fault}" for fault in faults))
