"""Makes every torch.load safe: it reads data and cannot run code."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

FORCE_DATA = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def data_only() -> Iterator[None]:
    """A context in which torch.load reads only tensors, plain values and registered types.

    This holds even for DeepSpeed's calls, which ask for any pickle, and a pickle can run code. torch.load reads this
    environment variable at each call.
    """
    before = os.environ.get(FORCE_DATA)
    os.environ[FORCE_DATA] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCE_DATA]
        else:
            os.environ[FORCE_DATA] = before
