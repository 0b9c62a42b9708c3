import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grpo_cli.config.model import LoraConfig
from grpo_cli.errors import ConfigError
from grpo_cli.training.lora import ADAPTER, add_adapters, merged_weights, named_layers, without_adapters

TOKENS = torch.tensor([[1, 2, 3]])
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=5, tie_word_embeddings=True, **shape)).eval()


def set_query_adapter(network) -> None:
    """W = identity, A = [1, 2], B = [3, 4] transposed."""
    layer = network.get_submodule(QUERY)
    with torch.no_grad():
        layer.get_base_layer().weight.copy_(torch.eye(2))
        layer.lora_A[ADAPTER].weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_B[ADAPTER].weight.copy_(torch.tensor([[3.0], [4.0]]))


def merged(network) -> dict[str, torch.Tensor]:
    return {f"{owner}.{name}": w for owner, m in named_layers(network) for name, w in merged_weights(m).items()}


def test_a_merged_weight_is_the_base_plus_the_scaled_product(network):
    add_adapters(network, LoraConfig(rank=1, alpha=2.0), seed=0)
    set_query_adapter(network)
    # B A = [[3, 6], [4, 8]], times alpha / rank = 2, and the identity
    assert merged(network)[f"{QUERY}.weight"].tolist() == [[7, 12], [8, 17]]
    assert network.get_submodule(QUERY).get_base_layer().weight.tolist() == [[1, 0], [0, 1]]


def test_a_new_adapter_changes_no_weight_and_no_name(network):
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    add_adapters(network, LoraConfig(rank=2), seed=0)
    after = merged(network)
    assert after.keys() == before.keys()
    assert "lm_head.weight" in after
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_only_adapters_on_the_target_modules_are_trained(network):
    add_adapters(network, LoraConfig(rank=2, target_modules=["q_proj", "mlp.up_proj"]), seed=0)
    trained = {name.split(".lora_")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {QUERY, "model.layers.0.mlp.up_proj"}
    assert all(".lora_" in name for name, p in network.named_parameters() if p.requires_grad)


def test_without_target_modules_every_linear_layer_but_the_head_is_adapted(network):
    add_adapters(network, LoraConfig(rank=2), seed=0)
    adapted = {name.split(".")[-2] for name, _ in network.named_modules() if name.endswith("base_layer")}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_without_adapters_the_network_is_the_base_model_and_afterwards_adapters_are_trained_again(network):
    base = network(TOKENS).logits
    add_adapters(network, LoraConfig(rank=1), seed=0)
    with torch.no_grad():
        network.get_submodule(QUERY).lora_B[ADAPTER].weight.fill_(3.0)
    adapted = network(TOKENS).logits
    with torch.no_grad(), without_adapters(network):
        assert torch.equal(network(TOKENS).logits, base)
    assert torch.equal(network(TOKENS).logits, adapted)
    assert not torch.equal(adapted, base)
    network(TOKENS).logits.sum().backward()
    assert network.get_submodule(QUERY).lora_B[ADAPTER].weight.grad is not None


def test_new_adapters_depend_only_on_their_seed(network):
    adapters = []
    for global_seed, seed in ((1, 7), (2, 7), (2, 8)):
        torch.manual_seed(global_seed)
        fresh = LlamaForCausalLM(network.config)
        add_adapters(fresh, LoraConfig(rank=1), seed)
        adapters.append(fresh.get_submodule(QUERY).lora_A[ADAPTER].weight)
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[1], adapters[2])


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "wq"])
def test_the_error_for_a_layer_that_cannot_be_adapted_lists_those_that_can(target, network):
    with pytest.raises(ConfigError, match=f"{target} is not a linear layer .* Choose from q_proj, k_proj"):
        add_adapters(network, LoraConfig(rank=1, target_modules=["q_proj", target]), seed=0)
