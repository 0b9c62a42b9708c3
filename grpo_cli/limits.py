"""Limits of the machine, checked before anything is loaded: open files and writable shared memory."""

import resource
from multiprocessing import get_context

from grpo_cli.errors import SetupError

MIN_OPEN_FILES, OPEN_FILES = 512, 65536


def check_open_files() -> None:
    """Increase this process' soft limit of open files as far as needed and allowed.

    Raises SetupError if the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        soft = most
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise SetupError(
            f"A process may have {soft} open files here, and a rank needs {MIN_OPEN_FILES}. Raise the hard limit: "
            "`ulimit -Hn 4096` as root, LimitNOFILE=4096 in a systemd unit, or --ulimit nofile=4096 of docker run."
        )


def check_shared_memory() -> None:
    """Raise SetupError if processes cannot share semaphores."""
    try:
        get_context("spawn").Lock()
    except OSError as error:
        raise SetupError(
            f"/dev/shm cannot be used ({error.strerror}), but processes share memory there. Mount a writable tmpfs "
            "there, for example with --shm-size=8g or --tmpfs /dev/shm of docker run."
        ) from error
