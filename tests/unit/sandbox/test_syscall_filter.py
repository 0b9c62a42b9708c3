import struct

import pytest

from grpo_cli.sandbox import syscall_filter

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026


def run_filter(program: bytes, call: int, first_argument: int, architecture: int) -> int:
    """Returns the kernel's answer to a system call: the result of running the filter on it."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    data = {0: call, 4: architecture, 16: first_argument}
    position, accumulator = 0, 0
    while True:
        code, yes, no, value = instructions[position]
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = data[value]
            position += 1
            continue
        is_true = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
        position += 1 + (yes if is_true else no)


@pytest.mark.parametrize(
    ("machine", "call", "first_argument", "answer"),
    [
        ("x86_64", 0, 3, ALLOW),  # read
        ("x86_64", 56, 0x1200011, ALLOW),  # clone, as called by fork
        ("x86_64", 56, 0x10000011, EPERM),  # clone with CLONE_NEWUSER
        ("x86_64", 435, 0, ENOSYS),  # clone3
        ("x86_64", 272, 0x10000000, EPERM),  # unshare
        ("x86_64", 41, 1, ALLOW),  # socket(AF_UNIX)
        ("x86_64", 41, 2, EPERM),  # socket(AF_INET)
        ("x86_64", 41, 40, EPERM),  # socket(AF_VSOCK)
        ("x86_64", 319, 0, EPERM),  # memfd_create
        ("x86_64", 157, 1, EPERM),  # prctl(PR_SET_PDEATHSIG)
        ("x86_64", 157, 15, ALLOW),  # prctl(PR_SET_NAME)
        ("x86_64", 0x40000000, 3, EPERM),  # read, as x32
        ("aarch64", 63, 3, ALLOW),  # read
        ("aarch64", 220, 0x1200011, ALLOW),
        ("aarch64", 220, 0x20000011, EPERM),  # CLONE_NEWPID
        ("aarch64", 97, 0, EPERM),  # unshare
        ("aarch64", 198, 1, ALLOW),
        ("aarch64", 198, 10, EPERM),  # socket(AF_INET6)
        ("aarch64", 167, 1, EPERM),  # prctl(PR_SET_PDEATHSIG)
        ("aarch64", 0, 0, EPERM),  # io_setup
    ],
)
def test_the_filter_allows_and_forbids_system_calls(monkeypatch, machine, call, first_argument, answer):
    monkeypatch.setattr(syscall_filter.platform, "machine", lambda: machine)
    syscall_filter.syscall_filter.cache_clear()
    program = syscall_filter.syscall_filter()
    syscall_filter.syscall_filter.cache_clear()
    architecture = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    assert run_filter(program, call, first_argument, architecture) == answer
    assert run_filter(program, call, first_argument, 0x40000003) == EPERM  # i386
