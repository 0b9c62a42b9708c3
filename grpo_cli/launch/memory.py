"""How this process deals with memory that it no longer needs."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc use freed memory again, of whatever size, and not give it back to the kernel.

    Each step makes and drops the same large tensors: else the kernel fills their pages with zeros every time.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
