"""The arguments that vLLM gets on a GPU; the engine itself is not started."""

import io
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.sampling import EvalConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.evaluation.completion import Series, engine_responders
from grpo_cli.evaluation.judge import load_judge
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.types import Problem

GPU = ClusterConfig(device=Device.cuda)
CONSOLE = Console(file=io.StringIO())


@pytest.fixture
def llm(monkeypatch) -> MagicMock:
    from grpo_cli.rollout import vllm_engine

    monkeypatch.setattr(vllm_engine, "LLM", MagicMock())
    monkeypatch.setattr(vllm_engine, "_KEPT", [])
    return vllm_engine.LLM


@pytest.fixture
def model() -> BaseModel:
    return load_base_model(ModelConfig(name="tiny", path="builtin:make_zero"))


def test_an_engine_for_training_can_sleep(llm, model):
    from grpo_cli.rollout.vllm_engine import RolloutEngine

    RolloutEngine(model, GPU, for_training=True).sleep()
    assert llm.call_args.kwargs["enable_sleep_mode"]
    assert llm.return_value.sleep.called


def test_an_engine_without_a_trainer_never_sleeps(llm, model):
    series = Series("s", [Problem("1", "13 5 6 2", "13 5 6 2 = 0")], TemplateConfig(), n=1)
    engine_responders([series], model, EvalConfig(), GPU, CONSOLE)
    assert not llm.call_args.kwargs["enable_sleep_mode"]


def test_a_judge_never_sleeps(llm):
    load_judge("builtin:make_zero", GPU, CONSOLE)
    assert not llm.call_args.kwargs["enable_sleep_mode"]
