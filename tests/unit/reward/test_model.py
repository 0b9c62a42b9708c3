"""The device of a reward model."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from grpo_cli.choices import Device
from grpo_cli.data.random_base import base_model_dir
from grpo_cli.reward.model import reward_model
from grpo_cli.reward.terms import ModelTerm


@pytest.fixture
def scorer(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir())
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    network = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **size))
    network.save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    return str(tmp_path / "scorer")


@pytest.mark.parametrize(
    ("chosen", "cluster", "place"),
    [
        ("auto", Device.cpu, "cpu"),
        ("auto", Device.cuda, "cuda"),  # without a number: the GPU that this rank has taken
        ("cpu", Device.cuda, "cpu"),
        ("cuda:1", Device.cpu, "cuda:1"),
    ],
)
def test_a_reward_model_is_on_the_clusters_device_unless_its_term_sets_another(
    chosen, cluster, place, scorer, monkeypatch
):
    places = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, place: places.append(str(place)) or self)
    reward_model("model", ModelTerm(path=scorer, device=chosen), cluster).close()
    assert places == [place]
