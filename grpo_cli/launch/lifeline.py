"""A process that ends when the one that started it does."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded now, since little is safe between fork and exec


def die_with(parent: int) -> None:
    """Let the kernel kill this process when `parent` dies, even of SIGKILL, which no handler sees."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
