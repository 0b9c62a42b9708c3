"""Names of files and folders that others can use as they are."""

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_TEMPORARY = 60  # bytes; of the 107 that a socket's path may have, as much as libraries leave


@contextmanager
def plain_name(folder: Path) -> Iterator[str]:
    """A name of `folder` that no library takes for a pattern, as long as this lasts.

    DeepSpeed and vLLM look for their files with `glob`, to which a folder `run[1]` is another one.
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
    """Give a temporary folder (TMPDIR) with a long path a short link, for this process and those that it starts.

    Processes talk to each other through sockets in it, whose paths the kernel limits.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= MAX_TEMPORARY:
        return
    link = Path("/tmp") / f"r1zero_{os.getuid()}_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    with suppress(OSError):
        if not link.is_symlink():
            link.symlink_to(folder)
        if link.lstat().st_uid == os.getuid() and os.readlink(link) == folder:  # else it is another user's
            os.environ["TMPDIR"] = tempfile.tempdir = str(link)
