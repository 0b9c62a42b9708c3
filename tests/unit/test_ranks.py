"""How a rank joins the others."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from grpo_cli import ranks


@pytest.fixture
def calls(monkeypatch) -> list:
    """What the third rank of a node asks of torch, in order; nothing of it is done."""
    made = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: made.append(f"GPU {index}"))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: made.append((backend, timeout)))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: made.append((backend, timeout)))
    monkeypatch.setattr(ranks, "_exchange_group", ranks._exchange_group.__wrapped__)  # which remembers no group
    return made


def test_a_rank_takes_its_own_gpu_before_it_joins_the_others(calls):
    ranks.start_ranks("cuda")
    gpu, (backend, timeout), exchange = calls
    assert gpu == "GPU 3"
    assert backend == "nccl"
    assert timeout > timedelta(hours=1)
    assert exchange == ("gloo", timedelta(days=1))


def test_a_rank_on_a_cpu_asks_for_no_gpu(calls):
    ranks.start_ranks("cpu")
    assert [backend for backend, _ in calls] == ["gloo", "gloo"]


@pytest.mark.usefixtures("one_rank")
def test_values_are_gathered_in_a_process_group_that_others_have_started():
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.gather("b", dist.new_group(backend="gloo")) == ["b"]
