"""A seccomp filter of the system calls that are forbidden in a box."""

import errno
import functools
import platform
import socket
import struct

from grpo_cli.errors import SetupError

# For each machine: its audit architecture, and the index of its system call numbers below.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

FORBIDDEN = {
    # Calls that allocate memory which RLIMIT_AS does not count.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_setup": (206, 0),
    # New namespaces (in a user namespace the box could mount file systems, which use memory without limits), the
    # keys of the user's session, and rarely used parts of the kernel.
    "unshare": (272, 97),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "syslog": (103, 116),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
CLONE, _CLONE3, _SOCKET, _PRCTL = (56, 220), (435, 435), (41, 198), (157, 167)
_CLONE_NEW_ANY, _PR_SET_PDEATHSIG = 0x7E020000, 1


@functools.cache
def syscall_filter() -> bytes:
    """Returns the seccomp filter, a classic BPF program. Forbidden calls fail with EPERM.

    Besides the calls above, it forbids `clone` with a new namespace, all sockets except AF_UNIX (the network namespace
    does not block AF_VSOCK), and the `prctl` call that would let a box outlive its parent.
    """
    if platform.machine() not in _MACHINES:
        known = ", ".join(_MACHINES)
        raise SetupError(
            f"sandbox=bwrap supports machines of the types {known}, and this one is {platform.machine()}. "
            "sandbox=none would run the code without protection."
        )
    architecture, column = _MACHINES[platform.machine()]
    load, equal, at_least, any_bit, result = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF's operations
    number_at, architecture_at, first_argument_at = 0, 4, 16  # offsets in struct seccomp_data
    allow, deny, missing = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

    # (operation, operand, instructions to skip if true, if false)
    program = [
        (load, architecture_at, 0, 0),
        (equal, architecture, 1, 0),
        (result, deny, 0, 0),
        (load, number_at, 0, 0),
        (at_least, 1 << 30, 0, 1),  # x86-64's x32 calls, which have different numbers
        (result, deny, 0, 0),
    ]
    for numbers in FORBIDDEN.values():
        program += [(equal, numbers[column], 0, 1), (result, deny, 0, 0)]
    # The filter cannot read the flags of clone3. If the call fails with ENOSYS, libc uses clone instead.
    program += [(equal, _CLONE3[column], 0, 1), (result, missing, 0, 0)]
    for numbers, test, operand, if_true, if_false in (
        (CLONE, any_bit, _CLONE_NEW_ANY, deny, allow),
        (_SOCKET, equal, socket.AF_UNIX, allow, deny),
        (_PRCTL, equal, _PR_SET_PDEATHSIG, deny, allow),
    ):
        program += [(equal, numbers[column], 0, 4), (load, first_argument_at, 0, 0), (test, operand, 0, 1)]
        program += [(result, if_true, 0, 0), (result, if_false, 0, 0)]
    program += [(result, allow, 0, 0)]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, value, yes, no in program)
