"""What a process needs of its machine before it loads anything: open files, and shared memory that can be written."""

import resource
from multiprocessing import get_context

from grpo_cli.errors import SetupError

MIN_OPEN_FILES, OPEN_FILES = 512, 65536


def check_open_files() -> None:
    """Raise this process' limit of open files as far as it needs and may.

    Raises SetupError where that is too little.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        soft = most
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise SetupError(
            f"A process may hold {soft} open files here, and a rank needs {MIN_OPEN_FILES}. Raise the hard limit: "
            "`ulimit -Hn 4096` as root, LimitNOFILE=4096 in a systemd unit, or --ulimit nofile=4096 of docker run."
        )


def check_shared_memory() -> None:
    """Raise SetupError where processes cannot share semaphores."""
    try:
        get_context("spawn").Lock()
    except OSError as error:
        raise SetupError(
            f"/dev/shm cannot be used ({error.strerror}), and processes that work together meet there. Mount a tmpfs "
            "there that can be written, as with --shm-size=8g or --tmpfs /dev/shm of docker run."
        ) from error
