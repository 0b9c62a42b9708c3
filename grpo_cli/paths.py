"""Names of files and folders that others can use as they are."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
