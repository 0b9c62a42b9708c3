"""How a rank joins the process group."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from grpo_cli import ranks


@pytest.fixture
def calls(monkeypatch) -> list:
    """The calls of torch that the rank with LOCAL_RANK 3 makes, in order; they are recorded and not executed."""
    made = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: made.append(f"GPU {index}"))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: made.append((backend, timeout)))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: made.append((backend, timeout)))
    monkeypatch.setattr(ranks, "_exchange_group", ranks._exchange_group.__wrapped__)  # without its cache
    return made


def test_a_rank_selects_its_gpu_before_it_joins_the_others(calls):
    ranks.start_ranks("cuda")
    gpu, (backend, timeout), exchange = calls
    assert gpu == "GPU 3"
    assert backend == "nccl"
    assert timeout > timedelta(hours=1)
    assert exchange == ("gloo", timedelta(days=1))


def test_a_rank_on_a_cpu_selects_no_gpu(calls):
    ranks.start_ranks("cpu")
    assert [backend for backend, _ in calls] == ["gloo", "gloo"]


@pytest.mark.usefixtures("one_rank")
def test_gather_works_in_a_process_group_that_was_started_elsewhere():
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.gather("b", dist.new_group(backend="gloo")) == ["b"]
