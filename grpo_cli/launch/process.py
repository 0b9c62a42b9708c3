"""Settings of a process in the kernel and the C library. As a program, it becomes another command (`with_parent`)."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def exit_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent` dies, even by SIGKILL, which no handler can catch."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def with_parent(command: Sequence[str]) -> list[str]:
    """A command line for `command` whose process dies when this one does.

    subprocess's preexec_fn could do the same, but makes it fork, which fails if this process has most of the memory.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory of any size instead of returning it to the kernel.

    Each step allocates and frees the same large tensors; otherwise the kernel fills their pages with zeros every time.
    """
    _LIBC.mallopt(M_MMAP_MAX, 0)
    _LIBC.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


if __name__ == "__main__":
    exit_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
