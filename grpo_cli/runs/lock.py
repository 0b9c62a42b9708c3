"""One writer at a time for a run folder, whatever becomes of it: the kernel frees the lock when its holder dies."""

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
WAIT_S = 15.0  # for a holder that is about to end, as the rank of a launcher that was killed
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that know no locks


@contextmanager
def locked(file: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold `file`, which is made where it is missing.

    Raises SetupError where another process still holds it after `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    with file.open("a+") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    held.seek(0)
                    raise SetupError(
                        f"{file.parent} is in use by another start of it ({held.read().strip()}). Let it end, stop it, "
                        "or set another run.dir."
                    ) from None
                time.sleep(0.1)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                break
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        yield
