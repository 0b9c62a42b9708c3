from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def one_rank() -> Iterator[None]:
    """A process group with this process only, without a network; an existing one is used as it is."""
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
