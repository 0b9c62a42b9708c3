"""The command line of bubblewrap: what a box sees, and as whom it runs."""

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
    """The command line up to the program that it runs. It reads the system call filter, and writes its child's pid.

    bubblewrap waits for process 1 of the box, and the kernel ends the other processes with it: so once bubblewrap has
    ended, nothing is left of the box. (Its own process 1, which it would put there, may outlive it as a zombie.)
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SetupError(
            "sandbox=bwrap: code that the model writes runs in bubblewrap, which is not installed. Run "
            "`apt-get install bubblewrap` or the like; sandbox=none would run the code unguarded."
        )
    namespaces = [f"--unshare-{kind}" for kind in ("pid", "net", "ipc", "uts", "cgroup-try")]
    command = [bwrap, "--die-with-parent", "--new-session", *namespaces, "--hostname", "box", *_mounts()]
    command += ["--as-pid-1", "--seccomp", str(filter_fd), "--info-fd", str(info_fd), "--cap-drop", "ALL"]
    if not _is_real_root():
        # The tested code could trace any process of its user: so there is none that has no limits and no filter.
        return [*command, "--unshare-user", "--uid", "65534", "--gid", "65534"]
    # RLIMIT_NPROC does not bind real root, in a user namespace neither: each box gets a user id that no one has.
    uid = 1 << 30 | secrets.randbits(29)
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # Process 1 stays root: bubblewrap's death, being root's without any right, could not end another user's process.
    command += ["sh", "-c", '"$@"; exit $?', "sh"]
    return [*command, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]


def _is_real_root() -> bool:
    """Whether this is user 0 of the machine, not of a container with separate user ids."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]


@functools.cache
def site_packages() -> tuple[str, ...]:
    return tuple(sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}))


@functools.cache
def _mounts() -> tuple[str, ...]:
    """A file system of the machine's /usr and this Python, all of it read-only but for a private /tmp."""
    mounts = ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    mounts += ["--perms", "1777", "--size", str(TMP_MIB * MIB), "--tmpfs", "/tmp"]
    python = (Path(os.path.realpath(path)) for path in (sys.base_prefix, *site_packages()))
    for path in (*map(Path, ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")), *python):
        # The folders above, such as a private home, are empty in the box, and open to its user.
        for parent in reversed(path.parents[:-1]):
            mounts += ["--perms", "0755", "--dir", str(parent)]
        mounts += ["--ro-bind-try", str(path), str(path)]
    return (*mounts, "--remount-ro", "/", "--chdir", "/tmp")
