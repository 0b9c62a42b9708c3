"""Errors that the user can fix. Each message states the rule, what was seen and what to do; no traceback is shown."""

from collections.abc import Sequence


class R1ZeroError(Exception):
    """Base class: r1zero prints the message alone and exits with `exit_status`."""

    exit_status = 1


class ConfigError(R1ZeroError):
    """A setting or a combination of settings cannot work."""


class DataError(R1ZeroError):
    """A data set is missing, empty or not in the format that its settings say."""


class SetupError(R1ZeroError):
    """The machine lacks something: a package, a network, a writable folder."""


class CheckpointError(R1ZeroError):
    """A checkpoint cannot be written or read."""


class TrainingError(R1ZeroError):
    """The run stopped itself, because continuing would be useless."""


class DivergedError(TrainingError):
    """The run's weights or gradients are no longer finite."""


class Stopped(R1ZeroError):
    """The run was asked to stop, and saved a checkpoint if it could."""

    exit_status = 143  # the shell's status of a process that SIGTERM ended


def raise_if_any(faults: Sequence[str]) -> None:
    """Raise one ConfigError that lists the faults, if there are any."""
    if faults:
        count = "is a mistake" if len(faults) == 1 else f"are {len(faults)} mistakes"
        raise ConfigError(f"There {count} in the settings:\n" + "\n".join(f"- {fault}" for fault in faults))
