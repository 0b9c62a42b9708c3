"""Locks of a run folder, for one writer at a time. The kernel frees a lock when its holder dies."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo_cli.errors import SetupError

LAUNCHER_LOCK, WRITER_LOCK = ".launcher.lock", ".writer.lock"  # in a run folder; the writer is rank 0
WAIT_S = 15.0  # for a holder that is about to end, such as a rank whose launcher was killed
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the file system has no locks


@contextmanager
def locked(file: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold a lock on `file`, which is created if it is missing.

    Raises SetupError if another process still holds it after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    with file.open("a+", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.seek(0)
                    raise SetupError(
                        f"{file.parent} is in use ({lock.read().strip()}). Wait until that process has ended, stop it, "
                        "or set another run.dir."
                    ) from None
                time.sleep(0.1)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                break
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
