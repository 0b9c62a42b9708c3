"""Paths that libraries and the kernel can handle: without glob patterns, and short."""

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_TEMPORARY = 60  # bytes; a socket's path may have 107, and libraries append the rest


@contextmanager
def plain_name(folder: Path) -> Iterator[str]:
    """A path of `folder` without glob characters, valid inside the `with` block.

    DeepSpeed and vLLM find their files with `glob`, which does not find a folder named `run[1]`.
    """
    if glob.escape(str(folder)) == str(folder):
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def shorten_temporary_folder() -> None:
    """If the path of the temporary folder (TMPDIR) is long, use a short link to it, also in child processes.

    Processes talk to each other through sockets in that folder, and the kernel limits the length of a socket's path.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= MAX_TEMPORARY:
        return
    link = Path("/tmp") / f"r1zero_{os.getuid()}_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    with suppress(OSError):
        if not link.is_symlink():
            link.symlink_to(folder)
        if link.lstat().st_uid == os.getuid() and os.readlink(link) == folder:  # not made by another user
            os.environ["TMPDIR"] = tempfile.tempdir = str(link)
