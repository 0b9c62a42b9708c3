"""Loading a base model for the trainer, checked against its own forward pass."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GraniteConfig, PretrainedConfig, StableLmConfig

from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.data.random_base import build_base
from grpo_cli.errors import ConfigError
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.training import attention, logprobs
from grpo_cli.training import network as network_module
from grpo_cli.training.network import check_family, load_network

CLUSTER = ClusterConfig(dtype=DType.fp32, gradient_checkpointing=False, tokens_per_microbatch=4096)
SHAPE = {
    "vocab_size": 257,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "eos_token_id": 256,
}


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    monkeypatch.setattr(network_module, "rank", lambda: 0)
    monkeypatch.setattr(network_module, "gather", lambda value: [value])


def base(folder: Path, config: PretrainedConfig) -> BaseModel:
    build_base(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_base_model(ModelConfig(name="m", path=str(folder)))


def test_a_family_that_keeps_sequences_apart_is_packed(tmp_path):
    assert load_network(base(tmp_path, GraniteConfig(**SHAPE, logits_scaling=4.0)), CLUSTER, 1.0).packs


def test_sequences_are_not_packed_if_the_budget_is_one_token(tmp_path):
    model = base(tmp_path, GraniteConfig(**SHAPE))
    assert not load_network(model, replace(CLUSTER, tokens_per_microbatch=1), 1.0).packs


def test_a_family_that_would_mix_sequences_is_not_packed(tmp_path):
    assert not load_network(base(tmp_path, StableLmConfig(**SHAPE)), CLUSTER, 1.0).packs


def test_sequences_are_not_packed_if_packed_attention_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "one_by_one", lambda module, query, *_, **options: 0 * query.transpose(1, 2))
    assert not load_network(base(tmp_path, GraniteConfig(**SHAPE)), CLUSTER, 1.0).packs


def test_an_unsupported_scale_of_the_logits_is_rejected(tmp_path, monkeypatch):
    model = base(tmp_path, GraniteConfig(**SHAPE, logits_scaling=4.0))
    monkeypatch.setattr(logprobs, "logit_transform", lambda config: logprobs.NO_TRANSFORM)
    with pytest.raises(ConfigError, match="A granite model cannot be trained"):
        load_network(model, CLUSTER, 1.0)


def test_dropout_in_the_model_files_is_off_in_training(tmp_path):
    shape = {"vocab_size": 257, "n_embd": 16, "n_layer": 1, "n_head": 2, "eos_token_id": 256, "resid_pdrop": 0.5}
    model = base(tmp_path, GPT2Config(**shape))
    network = load_network(model, replace(CLUSTER, gradient_checkpointing=True), 1.0)
    assert network.model.training  # otherwise nothing would be checkpointed
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


@pytest.mark.parametrize("family", network_module.UNTRAINABLE)
def test_an_untrainable_family_is_rejected_by_its_config_alone(family, tmp_path):
    model = base(tmp_path, GraniteConfig(**SHAPE))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": family}))
    with pytest.raises(ConfigError, match=f"is a {family} model"):
        check_family(model, CLUSTER)
