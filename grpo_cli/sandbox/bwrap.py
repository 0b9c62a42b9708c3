"""The command line of bubblewrap: which files a box sees and which user it runs as."""

import functools
import os
import secrets
import shutil
import sys
import sysconfig
from pathlib import Path

from grpo_cli.errors import SetupError

MIB = 1 << 20
TMP_MIB = 32


def bwrap_command(filter_fd: int, info_fd: int) -> list[str]:
    """Returns the command line up to the program. bubblewrap reads the filter from `filter_fd` and writes to `info_fd`.

    bubblewrap waits for process 1 of the box, and the kernel kills the other processes when it ends: so once bubblewrap
    has exited, no process of the box is left. (Without --as-pid-1 it would add its own process 1, which may outlive it
    as a zombie.) Raises SetupError if bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SetupError(
            "sandbox=bwrap: code that the model writes must run in bubblewrap, which is not installed. Run "
            "`apt-get install bubblewrap` or similar. sandbox=none would run the code without protection."
        )
    namespaces = [f"--unshare-{kind}" for kind in ("pid", "net", "ipc", "uts", "cgroup-try")]
    command = [bwrap, "--die-with-parent", "--new-session", *namespaces, "--hostname", "box", *_mounts()]
    command += ["--as-pid-1", "--seccomp", str(filter_fd), "--info-fd", str(info_fd), "--cap-drop", "ALL"]
    if not _is_real_root():
        # The tested code could trace every process of its user, so this user has no process without limits and filter.
        return [*command, "--unshare-user", "--uid", "65534", "--gid", "65534"]
    # RLIMIT_NPROC does not limit real root, not even in a user namespace: each box gets a user id that nobody else has.
    uid = 1 << 30 | secrets.randbits(29)
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # Process 1 stays root: bubblewrap is root without capabilities, so its death could not kill another user's process.
    command += ["sh", "-c", '"$@"; exit $?', "sh"]
    return [*command, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]


def _is_real_root() -> bool:
    """Whether this process runs as root of the machine, not of a container with separate user ids."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text(encoding="utf-8").split() == [
        "0",
        "0",
        str(2**32 - 1),
    ]


@functools.cache
def site_packages() -> tuple[str, ...]:
    return tuple(sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}))


@functools.cache
def _mounts() -> tuple[str, ...]:
    """Returns mount options for a file system with /usr and this Python, read-only except for a private /tmp."""
    mounts = ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    mounts += ["--perms", "1777", "--size", str(TMP_MIB * MIB), "--tmpfs", "/tmp"]
    python = (Path(os.path.realpath(path)) for path in (sys.base_prefix, *site_packages()))
    for path in (*map(Path, ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")), *python):
        # Parent folders, such as a private home, are empty in the box and readable by its user.
        for parent in reversed(path.parents[:-1]):
            mounts += ["--perms", "0755", "--dir", str(parent)]
        mounts += ["--ro-bind-try", str(path), str(path)]
    return (*mounts, "--remount-ro", "/", "--chdir", "/tmp")
