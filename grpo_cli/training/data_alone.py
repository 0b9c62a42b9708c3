"""Reading files of torch as data, whoever reads them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

FORCE_DATA = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def data_alone() -> Iterator[None]:
    """Within, torch.load reads tensors, plain values and the types made known to it, also where DeepSpeed asks for any
    pickle, which could run code. It looks at this variable at each call.
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
