import time
from collections.abc import Iterator
from io import StringIO

import pytest

from grpo_cli import progress


class Shown(StringIO):
    """What a console shows."""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.getvalue():
            assert time.monotonic() < deadline, self.getvalue()
            time.sleep(0.01)


@pytest.fixture
def shown(monkeypatch) -> Shown:
    """The file of a console; without a terminal, the first line about a piece of work comes at once."""
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    return Shown()


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
